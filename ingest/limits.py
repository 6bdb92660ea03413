"""The kernel's limit on watches: what it is, and what a person is told whose folders exceed it."""

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from ingest.files import followed, ignored
from kb import unwatched
from kb.store import Store

log = logging.getLogger(__name__)

SYSCTL = "fs.inotify.max_user_watches"
_FILE = Path("/proc/sys") / SYSCTL.replace(".", "/")


def limit() -> int:
    """Watches that this user may have; 0 where the kernel does not tell."""
    try:
        return int(_FILE.read_text())
    except OSError:
        return 0


def sentence(root: str, folders: int, sweep_seconds: float) -> str:
    """What it means that so many folders of a root are not watched, and what helps."""
    many = f"{folders} folders" if folders > 1 else "1 folder"
    return (
        f"{many} in {root} cannot be watched live, as the kernel gives no more watches: changes"
        f" there are found by the sweep, every {sweep_seconds:g} seconds; to see them at once,"
        f" raise {SYSCTL} (now {limit()})"
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
    return sum(path is None for _, path in followed(root))


class Limits:
    """Notes what one knowledge base's folders lack, and says it once: when it begins, and when it
    is over."""

    def __init__(self, store: Store, sweep_seconds: float) -> None:
        self._store = store
        self._sweep_seconds = sweep_seconds
        self._said: set[str] = set()

    def tell(self, folders: Mapping[str, int]) -> None:
        """`folders` gives how many are not watched, for each root that has some."""
        unwatched.note(self._store, folders)
        for root in self._said.difference(folders):
            log.info("all folders in %s are watched again", root)
        for root in sorted(set(folders) - self._said):
            log.warning("%s", sentence(root, folders[root], self._sweep_seconds))
        self._said = set(folders)
