"""One supervised process: started on a leash in a session of its own, its output in a log file.

Knows how to start, stop and kill it with all that it started. Does not know when to.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

from app import leash
from app.children import ChildSpec

MAX_LOG_BYTES = 5_000_000
KEPT_LOGS = 3
SAFE_PATH = {"PYTHONSAFEPATH": "1"}
"""`python -m` looks for modules in the working directory first: started in a folder of documents,
a `json.py` among them would run."""


class Child:
    """A running child. `leash` is a file on the standard library alone, so it starts in about
    20 ms and stays small."""

    def __init__(self, spec: ChildSpec, logs: Path) -> None:
        self.spec = spec
        self.log = rotated(logs, spec.name)
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        command = [sys.executable, "-I", "-S", leash.__file__, *spec.command]
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                command,
                env=os.environ | SAFE_PATH | dict(spec.environment),
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The leash's process, leader of the child's session and group."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """None while it runs. 128 + n if signal n ended it."""
        code = self._process.poll()
        if code is None:
            return None
        self._sweep_up()
        return code if code >= 0 else 128 - code

    def terminate(self) -> None:
        """Ask it to end."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it and everything it started, at once."""
        self._let_go()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._sweep_up()

    def last_lines(self, n: int) -> list[str]:
        """The end of what this run has logged."""
        with self.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._log_start, size - 16_384))
            text = file.read().decode("utf-8", errors="replace")
        return [line for line in text.splitlines() if line.strip()][-n:]

    def _sweep_up(self) -> None:
        """Whatever of the group outlived a leash that was itself killed."""
        self._let_go()
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def _let_go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()


def rotated(logs: Path, name: str) -> Path:
    """The log file to append to; one that grew large becomes `NAME.log.1`, and so on."""
    logs.mkdir(parents=True, exist_ok=True)
    current = logs / f"{name}.log"
    if current.exists() and current.stat().st_size > MAX_LOG_BYTES:
        for n in range(KEPT_LOGS - 1, 0, -1):
            older = logs / f"{name}.log.{n}"
            if older.exists():
                older.replace(logs / f"{name}.log.{n + 1}")
        current.replace(logs / f"{name}.log.1")
    return current
