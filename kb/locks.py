"""One at a time: a lock file that the system frees when its process dies. Knows no purpose."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kb.errors import WriterBusy

WRITER = "writer.lock"
"""In a knowledge base's folder: held by whoever writes it."""
INGEST = "ingest.lock"
"""In the home: held by a running `ingest run` or `ingest sweep`."""
CATALOG = "catalog.lock"
"""In the home: shared by whoever makes a knowledge base; alone with it is who removes one."""


@contextmanager
def held(file: Path, *, alone: bool) -> Iterator[None]:
    """Hold `file`, alone or with others who do not need it alone, waiting until that is possible.

    For work of moments.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


@contextmanager
def exclusive(file: Path, what: str, *, make: bool = True) -> Iterator[None]:
    """Hold `file`, whose folder is made at need, or raises FileNotFoundError if not `make`.

    Raises WriterBusy at once, naming `what` and the process that holds it.
    """
    if make:
        file.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(handle, 32).decode("ascii", errors="replace").strip() or "unknown"
            raise WriterBusy(f"{what} is in use by process {holder}") from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)
