"""The real writer as a process: started, waited for, killed. Knows nothing of what it writes."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Writer:
    """`ingest run` over a home, with a fake embedder; what it says goes to `home/ingest.log`."""

    def __init__(self, home: Path, settings: Mapping[str, str] | None = None) -> None:
        self._log = home / "ingest.log"
        clean = {k: v for k, v in os.environ.items() if not k.startswith("VADEMECUM_")}
        ours = {"VADEMECUM_HOME": str(home), "VADEMECUM_KB__EMBEDDER": "fake:64"}
        with self._log.open("ab") as log:
            self._said = log.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ingest.cli", "run"],
                cwd=ROOT,
                env=clean | ours | dict(settings or {}),
                stdout=log,
                stderr=log,
                # A group of its own: whatever it leaves behind can be found and ended.
                start_new_session=True,
            )

    def kill(self) -> None:
        """SIGKILL, at once; nothing of it goes on."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def is_ready(self) -> bool:
        """Whether it said so: it follows the folders."""
        return b"ingest ready" in self._log.read_bytes()[self._said :]

    def must_live(self) -> None:
        if self.process.poll() is not None:
            raise AssertionError(f"the writer ended by itself:\n{self._log.read_text()[-2000:]}")
