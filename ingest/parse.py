"""Files' bytes -> Parsed, in one long-lived child process with limits on time and memory.

A file that crashes, hangs or bloats the child fails alone: the next file gets a fresh child.
Knows nothing of formats (`ingest.extract`, which runs in the child).
"""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ingest.settings import IngestSettings
from kb.errors import Transient, Unreadable
from kb.records import Parsed

_ROOT = Path(__file__).resolve().parent.parent
_START_SECONDS = 60.0


class ParserDown(Transient):
    """The child process cannot be started; no file's fault."""


class Parser:
    """Starts its child with the first file. For one thread; `close` when done."""

    def __init__(self, settings: IngestSettings) -> None:
        self._settings = settings
        self._ocr = settings.ocr_languages if settings.ocr else ""
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id, None while there is none."""
        return self._child.pid if self._child is not None else None

    def parse(self, path: str, data: bytes) -> Parsed:
        """Read a document; only the name in `path` matters. Raises Unreadable, ParserDown."""
        name = PurePosixPath(path).name
        child = self._running()
        head = json.dumps({"name": name, "size": len(data), "ocr": self._ocr}).encode()
        reply, in_time = _exchange(child, head + b"\n" + data, self._settings.parse_seconds)
        if reply is None:
            self.close()
            if not in_time:
                seconds = f"{self._settings.parse_seconds:g}"
                raise Unreadable("timeout", f"{name} could not be read within {seconds} seconds")
            raise Unreadable(
                "corrupt",
                f"{name} made the reader crash: it is damaged, or needs more than"
                f" {self._settings.parse_memory_mb} MB of memory",
            )
        if "code" in reply:
            raise Unreadable(reply["code"], reply["message"])
        return Parsed(reply["text"], reply["title"], tuple(reply["pages"]))

    def close(self) -> None:
        """End the child, whatever it is doing."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for stream in (child.stdin, child.stdout):
                _close(stream)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is None:
            return self._child
        self.close()
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        try:
            child = subprocess.Popen(
                [sys.executable, "-m", "ingest.parse_child", str(self._settings.parse_memory_mb)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True,  # Ctrl-C is for the parent, which then ends the child
            )
        except OSError as error:
            raise ParserDown(f"the document reader cannot be started: {error}") from error
        self._child = child
        ready, _ = _exchange(child, b"", _START_SECONDS)
        if ready is None:
            self.close()
            raise ParserDown("the document reader does not start")
        return child


def _exchange(
    child: subprocess.Popen[bytes], message: bytes, seconds: float
) -> tuple[dict[str, Any] | None, bool]:
    """Send, and wait for a line. Returns the reply (None if the child died) and whether time was
    left: a child that takes longer is killed, which ends both the writing and the waiting."""
    assert child.stdin is not None and child.stdout is not None
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        child.kill()

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        child.stdin.write(message)
        child.stdin.flush()
        line = child.stdout.readline()
    except BrokenPipeError:
        line = b""
    finally:
        timer.cancel()
    return (json.loads(line) if line.endswith(b"\n") else None), not expired.is_set()


def _close(stream: IO[bytes] | None) -> None:
    if stream is None:
        return
    try:
        stream.close()
    except BrokenPipeError:
        return  # bytes for a child that is gone
