"""The command `finetune`: a run that trains begins anew with the right heap, all else at once."""

import os
import sys

from finetune import heap


def main() -> int:
    """Entry point. `python -m finetune.cli`, as launchers of several processes start it, takes
    the environment as it is."""
    wanted = heap.environment(os.environ)
    if sys.platform == "linux" and sys.argv[1:2] == ["train"] and wanted != dict(os.environ):
        command = [sys.executable, "-P", "-m", "finetune.cli", *sys.argv[1:]]
        os.execve(sys.executable, command, wanted)
    from finetune import cli  # its libraries are not needed twice

    return cli.main()
