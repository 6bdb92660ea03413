"""Files on disk: which ones count, and how one is read whole. Knows no ledger and no format.

A symbolic link is followed only to a file inside the watched folder, and that is checked on the
open file, so that nothing can be swapped in between.
"""

import fcntl
import hashlib
import logging
import os
import signal
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kb.errors import Transient, Unreadable

log = logging.getLogger(__name__)

_TEMPORARY = ("~", ".swp", ".swx", ".tmp", ".part", ".crdownload")
_FILLING_SECONDS = 2.0
"""How long an empty file is given to be filled: many programs create first and write later."""


class StillChanging(Transient):
    """Somebody writes this file right now; `wait` says when to look again, in seconds."""

    def __init__(self, name: str, wait: float) -> None:
        super().__init__(f"{name} is still being written")
        self.wait = wait


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells one version of a file from another without reading it."""

    size: int
    mtime_ns: int


class Refused(Unreadable):
    """The version `stamp` of a file cannot be turned into text; the next one may well be."""

    def __init__(self, code: str, message: str, stamp: Stamp) -> None:
        super().__init__(code, message)
        self.stamp = stamp


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A file's bytes at one moment."""

    stamp: Stamp
    data: bytes
    sha256: str


def ignored(path: str) -> bool:
    """Whether a path (relative to its folder) is hidden, an editor's or browser's own, or has a
    name that is no text (and so cannot be stored)."""
    parts = PurePosixPath(path).parts
    name = parts[-1] if parts else ""
    return (
        any(part.startswith(".") for part in parts)
        or name.lower().endswith(_TEMPORARY)
        or name.startswith("~$")
        or (name.startswith("#") and name.endswith("#"))
        or any("\udc80" <= c <= "\udcff" for c in path)  # how Python shows undecodable bytes
    )


def followed(root: Path) -> Iterator[tuple[Path, str | None]]:
    """Each folder, parents first, alone and then with the relative path of each of its files that
    count. What cannot be listed is said and left out."""
    for name, folders, files in os.walk(root, onerror=unlisted):
        folder = Path(name)
        here = folder.relative_to(root)
        yield folder, None
        folders[:] = [name for name in folders if not ignored(name)]
        for file in files:
            path = (here / file).as_posix()
            if not ignored(path):
                yield folder, path


def unlisted(error: OSError) -> None:
    log.warning("something cannot be looked at: %s", error)


def stamp(root: Path, path: str) -> Stamp | None:
    """The version of a followed file; None if there is no regular file inside `root` there."""
    target = root / path
    try:
        found = target.lstat()
        if stat.S_ISLNK(found.st_mode):
            if not target.resolve(strict=True).is_relative_to(root.resolve()):
                return None
            found = target.stat()
    except (FileNotFoundError, NotADirectoryError, RuntimeError):  # RuntimeError: a loop of links
        return None
    return Stamp(found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def same_entry(root: Path, path: str, other: str) -> bool:
    """Whether two names that differ in case only are one file: the disk does not tell them apart.
    False if either is missing."""
    if path.casefold() != other.casefold():
        return False
    try:
        one, two = (root / path).lstat(), (root / other).lstat()
    except OSError:
        return False
    return os.path.samestat(one, two) and one.st_nlink == 1


def read(
    root: Path, path: str, *, max_bytes: int, settle: float, now: float, closed: bool = False
) -> Snapshot:
    """Read a file that nobody is writing; one that was `closed` by its writer, or that nobody has
    open for writing, need not be quiet for `settle` seconds. `now` is epoch seconds.

    Raises FileNotFoundError (also for what is no regular file inside `root`), StillChanging,
    Refused (`too_large`), Unreadable (`unreadable`), OSError.
    """
    name = PurePosixPath(path).name
    try:
        # O_NONBLOCK: opening a named pipe must not wait for its writer.
        handle = os.open(root / path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError as error:
        raise Unreadable("unreadable", f"{name} may not be read: permission denied") from error
    with os.fdopen(handle, "rb") as file:
        before = os.fstat(handle)
        _must_be_inside(root, path, handle, before)
        # A time stamp in the future (a copied file, another clock) says nothing; take the file.
        age = now - before.st_mtime
        if 0 <= age < settle and not closed and not _is_closed(handle):
            raise StillChanging(name, settle - age)
        if 0 <= age < _FILLING_SECONDS and not before.st_size:
            raise StillChanging(name, _FILLING_SECONDS - age)
        if before.st_size > max_bytes:
            raise Refused(
                "too_large",
                f"{name} has {_mb(before.st_size)} MB; at most {_mb(max_bytes)} are read",
                _version(before),
            )
        data = file.read(max_bytes + 1)
        after = os.fstat(handle)
    if _version(before) != _version(after) or len(data) != after.st_size:
        raise StillChanging(name, settle)
    return Snapshot(_version(after), data, hashlib.sha256(data).hexdigest())


def _must_be_inside(root: Path, path: str, handle: int, found: os.stat_result) -> None:
    opened = Path(f"/proc/self/fd/{handle}").resolve()
    if not stat.S_ISREG(found.st_mode) or not opened.is_relative_to(root.resolve()):
        raise FileNotFoundError(path)


def _is_closed(handle: int) -> bool:
    """Whether nobody has the file open for writing, as far as the kernel tells: it grants a lease
    then. Not on every disk, and not for another user's file."""
    try:
        # Who opens the file in this very moment is told to us by a signal; this one does nothing.
        fcntl.fcntl(handle, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:
        return False
    return True


def _version(found: os.stat_result) -> Stamp:
    return Stamp(found.st_size, found.st_mtime_ns)


def _mb(size: int) -> str:
    return f"{size / 2**20:.0f}"
