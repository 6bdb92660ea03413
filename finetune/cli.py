"""The `finetune` command line: reads the configuration, calls one module, prints what it returns.

Exit codes: 0 done, 1 failed, 2 the gate said no, 3 bad configuration or data.
"""

import logging
import os
import sys

import typer

from finetune import cli_data, cli_judge, cli_release, cli_train
from finetune.exhausted import is_out_of_memory
from kb.errors import (
    BadConfiguration,
    BadData,
    GateClosed,
    ModelNotFound,
    UnknownKnowledgeBase,
    VademecumError,
    one_line,
)

_SPINS = "10000"
"""How often libgomp's threads look again before they sleep; its default is 300,000. Alone it makes
no difference, beside one busy process training is three times as fast (docs/benchmarks.md)."""

cli = typer.Typer(
    help="Train the model of a field, and prove it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@cli.callback()
def _group() -> None:
    """Said before any library is imported that would report to its makers, or would tell at every
    start of a kernel that training does not use; or whose threads spin while they wait."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


cli_data.register(cli)
cli_train.register(cli)
cli_judge.register(cli)
cli_release.register(cli)


def main() -> int:
    """Entry point; turns errors into one line and the right exit code."""
    try:
        cli()
    except (BadConfiguration, BadData, ModelNotFound, UnknownKnowledgeBase) as error:
        sys.stderr.write(f"{error}\n")
        return 3
    except GateClosed as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except VademecumError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except OSError as error:  # a full disk, a folder that may not be written
        where = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"{where}{error.strerror or error}\n")
        return 1
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        sys.stderr.write(f"too little memory: {one_line(error) or 'the system gave no more'}\n")
        return 1
    except SystemExit as exit_:
        # Typer ends with 2 for a wrong command line; here 2 means that the gate said no.
        return 3 if exit_.code == 2 else int(exit_.code or 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
