"""Files' bytes -> Parsed, in one long-lived child process with limits on time and memory.

A file that crashes, hangs or bloats the child fails alone: the next file gets a fresh child.
Knows nothing of formats (`ingest.formats`, which runs in the child).
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ingest import scans
from ingest.settings import IngestSettings
from kb.errors import Transient, Unreadable
from kb.records import Parsed

_ROOT = Path(__file__).resolve().parent.parent
_START_SECONDS = 60.0
_PATIENCE = 10
"""How much a patient child is nice."""


_KILLED = {-number for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
"""How a child ends that somebody else wanted gone: the kernel, short of memory; a service that is
stopped, with all its processes. A crash by a file's fault looks otherwise."""
_ENDING = 5.0
"""Seconds in which a child that closed its output must be gone."""


def means(settings: IngestSettings, environ: Mapping[str, str]) -> str:
    """What decides whether a file can be read at all: a file that failed may not, with others."""
    limits = {"max_file_mb", "max_text_mb", "parse_seconds", "parse_memory_mb"}
    ocr = asdict(scans.choose(settings, environ))
    return json.dumps(settings.model_dump(include=limits) | {"ocr": ocr}, sort_keys=True)


class ParserDown(Transient):
    """The child process cannot be started, or was killed by others; no file's fault."""


class Parser:
    """Starts its child with the first file, if not before. For one thread; `close` when done, from
    any: it starts no other. `patient`: other processes come first where processors are scarce."""

    def __init__(self, settings: IngestSettings, *, patient: bool = False) -> None:
        self._settings = settings
        self._patient = patient
        self._ocr = scans.choose(settings, os.environ)
        self._child: subprocess.Popen[bytes] | None = None
        self._is_closed = False

    @property
    def pid(self) -> int | None:
        """The child's process id, None while there is none."""
        return self._child.pid if self._child is not None else None

    def start(self) -> None:
        """Have a child before the first file comes. Raises ParserDown."""
        self._running()

    def parse(self, path: str, data: bytes) -> Parsed:
        """Read a document; only the name in `path` matters. Raises Unreadable, ParserDown."""
        name = PurePosixPath(path).name
        child = self._running()
        head = json.dumps({"name": name, "size": len(data), "ocr": asdict(self._ocr)}).encode()
        reply, in_time = _exchange(child, head + b"\n" + data, self._settings.parse_seconds)
        if reply is None:
            status = _ended(child)
            self._end()
            if not in_time:
                seconds = f"{self._settings.parse_seconds:g}"
                raise Unreadable("timeout", f"{name} could not be read within {seconds} seconds")
            if status in _KILLED:
                raise ParserDown(f"the document reader was killed while it read {name}")
            raise Unreadable(
                "corrupt",
                f"{name} made the reader crash: it is damaged, or needs more than"
                f" {self._settings.parse_memory_mb} MB of memory",
            )
        if "code" in reply:
            raise Unreadable(reply["code"], reply["message"])
        return Parsed(reply["text"], reply["title"], tuple(reply["pages"]))

    def close(self) -> None:
        """End the child, whatever it is doing, and one that is just being started."""
        self._is_closed = True
        self._end()

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for stream in (child.stdin, child.stdout):
                _close(stream)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is None:
            return self._child
        self._end()
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONSAFEPATH": "1",  # started in the folder of documents, none may be taken for code
        }
        if self._ocr.folder:
            environment["TESSDATA_PREFIX"] = self._ocr.folder
        try:
            child = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "ingest.parse_child",
                    str(self._settings.parse_memory_mb),
                    str(self._settings.max_text_mb),
                    str(_PATIENCE if self._patient else 0),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the parent, which then ends the child
            )
        except OSError as error:
            raise ParserDown(f"the document reader cannot be started: {error}") from error
        self._child = child
        # Looked at after the child can be seen: so either `close` ends it, or this does.
        ready = None if self._is_closed else _exchange(child, b"", _START_SECONDS)[0]
        if ready is None:
            self._end()
            raise ParserDown("the document reader does not start")
        return child


class _Deadline:
    """Kills the child when `seconds` pass without a restart; used by one thread."""

    def __init__(self, child: subprocess.Popen[bytes], seconds: float) -> None:
        self.passed = threading.Event()
        self._child = child
        self._seconds = seconds
        self.restart()

    def restart(self) -> None:
        self._timer = threading.Timer(self._seconds, self._expire)
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        self._timer.cancel()

    def _expire(self) -> None:
        self.passed.set()
        self._child.kill()


def _exchange(
    child: subprocess.Popen[bytes], message: bytes, seconds: float
) -> tuple[dict[str, Any] | None, bool]:
    """Send, and wait for a reply. Returns it (None if the child died) and whether time was left:
    a child that takes longer is killed, which ends both the writing and the waiting. Each scanned
    page that is done gives the next one as much time again."""
    assert child.stdin is not None and child.stdout is not None
    deadline = _Deadline(child, seconds)
    reply: dict[str, Any] | None = None
    try:
        child.stdin.write(message)
        child.stdin.flush()
        while line := child.stdout.readline():
            reply = json.loads(line) if line.endswith(b"\n") else None
            if reply is None or "page" not in reply:
                break
            deadline.cancel()
            deadline.restart()
            reply = None
    except BrokenPipeError:
        reply = None
    finally:
        deadline.cancel()
    return reply, not deadline.passed.is_set()


def _ended(child: subprocess.Popen[bytes]) -> int | None:
    """How the child ended, if it does by itself."""
    try:
        return child.wait(_ENDING)
    except subprocess.TimeoutExpired:
        return None


def _close(stream: IO[bytes] | None) -> None:
    if stream is None:
        return
    try:
        stream.close()
    except BrokenPipeError:
        return  # bytes for a child that is gone
