"""A folder against the ledger -> file events. Heals what happened while nobody watched.

Looks, and changes nothing. Nothing is reported as deleted while the folder itself is missing, or
is empty on another device than before: then its disk is not mounted.
"""

import logging
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ingest.files import Stamp, ignored, stamp
from ingest.watch import FileEvent
from kb.ledger import File, Ledger
from kb.store import Store

log = logging.getLogger(__name__)


class Sweeper:
    """Compares watched folders with one knowledge base's ledger."""

    def __init__(self, store: Store, ledger: Ledger) -> None:
        self._store = store
        self._ledger = ledger
        self._absent: set[Path] = set()

    def sweep(self, root: Path) -> list[FileEvent]:
        """What the ledger does not know yet: moved, changed and deleted files."""
        if not self._is_present(root):
            return []
        disk = _walk(root)
        known = {file.path: file for file in self._ledger.all(str(root))}
        new = {path: found for path, found in disk.items() if path not in known}
        gone = [f for path, f in known.items() if path not in disk and _is_gone(root, path)]
        moves = _moves(gone, new)
        events = [FileEvent("moved", str(root), old, path) for old, path in moves.items()]
        events += [
            FileEvent("changed", str(root), path)
            for path, found in disk.items()
            if path not in moves.values() and _differs(known.get(path), found)
        ]
        events += [FileEvent("deleted", str(root), f.path) for f in gone if f.path not in moves]
        return events

    def _is_present(self, root: Path) -> bool:
        """Whether the folder is really there; says once when it is not, and when it is again."""
        key = f"device {root}"
        try:
            device = str(root.stat().st_dev)
            empty = next(root.iterdir(), None) is None
        except OSError:
            device, empty = "", True
        present = bool(device) and not (empty and self._store.meta(key) not in (None, device))
        if present:
            if self._store.meta(key) != device:
                self._store.set_meta(key, device)
            if root in self._absent:
                log.info("%s is back", root)
            self._absent.discard(root)
        elif root not in self._absent:
            log.warning("%s is missing; what is known of it is kept until it is back", root)
            self._absent.add(root)
        return present


def _walk(root: Path) -> dict[str, Stamp]:
    """The files that count below `root`, by their relative paths."""
    out = {}
    for path in _paths(root):
        try:
            found = stamp(root, path)
        except OSError as error:
            _unlisted(error)
            continue
        if found is not None:
            out[path] = found
    return out


def _paths(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root, onerror=_unlisted):
        here = Path(folder).relative_to(root)
        folders[:] = [name for name in folders if not ignored(name)]
        for name in files:
            path = (here / name).as_posix()
            if not ignored(path):
                yield path


def _unlisted(error: OSError) -> None:
    log.warning("something cannot be looked at: %s", error)


def _differs(known: File | None, found: Stamp) -> bool:
    """Whether a file on disk is work. What is in progress already is left alone."""
    if known is None:
        return True
    if known.status in ("in_progress", "cancelled"):
        return False
    return (known.size, known.mtime_ns) != (found.size, found.mtime_ns)


def _is_gone(root: Path, path: str) -> bool:
    """Whether a file that the walk did not meet is gone, not merely out of sight."""
    try:
        return stamp(root, path) is None
    except OSError:
        return False


def _moves(gone: list[File], new: dict[str, Stamp]) -> dict[str, str]:
    """Old path -> new path of files that only moved: the same size, time and, if need be, name.

    A guess that is wrong costs nothing: the file is read again at its new place.
    """
    places: dict[Stamp, list[str]] = defaultdict(list)
    for path, found in new.items():
        places[found].append(path)
    moves: dict[str, str] = {}
    for file in gone:
        candidates = places[Stamp(file.size, file.mtime_ns)]
        named = [p for p in candidates if PurePosixPath(p).name == PurePosixPath(file.path).name]
        chosen = named or (candidates if len(candidates) == 1 else [])
        if chosen:
            moves[file.path] = chosen[0]
            candidates.remove(chosen[0])
    return moves
