"""Which disks are mounted where, and which folder of which disk is seen at a place, as the kernel
tells it. Knows no watch and no ledger."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_LIST = Path("/proc/self/mountinfo")  # its format: man 5 proc_pid_mountinfo
_FILES = Path("/proc/self/fd")
_ABOUT_FILES = Path("/proc/self/fdinfo")
_ESCAPED = re.compile(r"\\([0-7]{3})")
_MOUNT = re.compile(r"^mnt_id:\s*(\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Mount:
    """The folder `root` of a disk, seen at `at`. The kernel's numbers, of the mount, of the one
    that it is in, and of the device, tell one mount from another; they are used again."""

    number: str
    parent: str
    device: str
    root: str
    at: str


@dataclass(frozen=True, slots=True)
class Shown:
    """What is seen at a place: the number of a device, and which folder of it; empty where the
    kernel does not tell. The folder is another as soon as a mount at the place, or above it, comes
    or goes, of the same device too; and the same again after a restart."""

    device: int
    folder: str


def mounts() -> Sequence[Mount]:
    """All of them; none where the kernel does not tell."""
    try:
        return _listed()
    except OSError:
        return ()


def within(folder: Path, mounts: Sequence[Mount]) -> frozenset[Mount]:
    """Those at the folder and below it."""
    real = os.path.realpath(folder)
    below = real.rstrip("/") + "/"
    return frozenset(m for m in mounts if m.at == real or m.at.startswith(below))


def points(root: Path) -> set[Path]:
    """The places at `root` and below it where something is mounted, by their paths in it."""
    real = os.path.realpath(root)
    return {root / os.path.relpath(m.at, real) for m in within(root, mounts())}


def is_mount(place: Path) -> bool:
    """Whether something is mounted there, be it a folder of the same disk."""
    return place.is_mount() or place in points(place)


def shown(place: Path) -> Shown:
    """Raises OSError for a folder that is not there, or that cannot be looked into."""
    handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return Shown(os.fstat(handle).st_dev, _folder(handle))
    finally:
        os.close(handle)


def _folder(handle: int) -> str:
    try:
        found = _MOUNT.search((_ABOUT_FILES / str(handle)).read_text())
        listed = {mount.number: mount for mount in _listed()}
        path = (_FILES / str(handle)).readlink()
    except FileNotFoundError:  # no such kernel; that it cannot be asked now is another thing
        return ""
    mount = listed.get(found.group(1)) if found else None
    if mount is None:
        return ""
    return str(Path(mount.root, os.path.relpath(path, mount.at)))


def _listed() -> Sequence[Mount]:
    return _parsed(_LIST.read_bytes())


@lru_cache(maxsize=1)  # asked for each file that is gone
def _parsed(listed: bytes) -> Sequence[Mount]:
    fields = (line.split(" ", 5) for line in os.fsdecode(listed).split("\n"))
    return tuple(Mount(*map(_unescape, f[:5])) for f in fields if len(f) > 5)


def _unescape(path: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found.group(1), 8)), path)
