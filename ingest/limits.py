"""The kernel's limits on watching: what they are, and what a person is told who meets one."""

import errno
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from ingest.files import followed, ignored
from kb import unwatched
from kb.store import Store
from kb.unwatched import Lack

log = logging.getLogger(__name__)

_SYSCTLS: Mapping[Lack, str] = {
    "watches": "fs.inotify.max_user_watches",
    "instances": "fs.inotify.max_user_instances",
}
_SAID: Mapping[Lack, str] = {
    "watches": "watches",
    "instances": "inotify instances",
    "files": "open files",
}
_INSTANCE_FILES = 3
"""Open files that one inotify instance takes: its own, and a pipe to wake its reader."""


def limit(lack: Lack) -> int:
    """How many this user may have; 0 where the kernel does not tell."""
    try:
        return int(Path("/proc/sys", *_SYSCTLS[lack].split(".")).read_text())
    except OSError:
        return 0


def no_instance() -> Lack:
    """What there is no more of when the kernel refused an inotify instance with EMFILE: it says
    the same when this user has no instance left and when this process may open no more files."""
    handles: list[int] = []
    try:
        for _ in range(_INSTANCE_FILES):
            handles.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        return "files"
    finally:
        for handle in handles:
            os.close(handle)
    return "instances"


def sentence(root: str, folders: int, lack: Lack, sweep_seconds: float) -> str:
    """What it means that so many folders of a root are not watched, and what helps."""
    many = f"{folders} folders" if folders > 1 else "1 folder"
    helps = (
        f"{_SYSCTLS[lack]} (now {limit(lack)})"
        if lack in _SYSCTLS
        else "the limit on the open files of ingest (ulimit -n)"
    )
    return (
        f"{many} in {root} cannot be watched live, as the kernel gives no more {_SAID[lack]}:"
        f" changes there are found by the sweep, every {sweep_seconds:g} seconds; to see them at"
        f" once, raise {helps}"
    )


def lacking(refused: set[bytes], watched: Iterable[Path], others: Iterable[Path]) -> dict[str, int]:
    """How many folders that count have no watch, for each root that has some: of those `watched`,
    the `refused` ones below; of the `others`, if they were refused, all. Forgets folders that are
    gone."""
    there: set[Path] = set()
    for path in refused.copy():  # watchdog's thread adds to it
        if (folder := Path(os.fsdecode(path))).is_dir():
            there.add(folder)
        else:
            refused.discard(path)
    out = {str(root): _folders(root) for root in others if root in there}
    for root in watched:
        below = [path.relative_to(root) for path in there if path.is_relative_to(root)]
        if n := sum(not ignored(path.as_posix()) for path in below):
            out[str(root)] = n
    return out


def _folders(root: Path) -> int:
    """One that cannot be listed counts itself."""
    return max(1, sum(path is None for _, path in followed(root)))


class Limits:
    """Notes what one knowledge base's folders lack, and says it once: when it begins, and when it
    is over."""

    def __init__(self, store: Store, sweep_seconds: float) -> None:
        self._store = store
        self._sweep_seconds = sweep_seconds
        self._said: dict[str, Lack] = {}

    def tell(self, folders: Mapping[str, int], lack: Lack) -> None:
        """`folders` gives how many are not watched, for each root that has some."""
        unwatched.note(self._store, folders, lack)
        for root in self._said.keys() - folders.keys():
            log.info("all folders in %s are watched again", root)
        for root in sorted(folders):
            if self._said.get(root) != lack:
                log.warning("%s", sentence(root, folders[root], lack, self._sweep_seconds))
        self._said = dict.fromkeys(folders, lack)
