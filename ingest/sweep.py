"""A folder against the ledger -> file events. Heals what happened while nobody watched.

Looks, and changes nothing. Nothing is reported as deleted while its disk is not mounted
(`ingest.presence`).
"""

from collections import defaultdict
from math import inf
from pathlib import Path, PurePosixPath

from ingest.events import FileEvent
from ingest.files import Stamp, followed, same_entry, stamp, unlisted
from ingest.mounts import points
from ingest.presence import Presence
from kb.ledger import File, Ledger


class Sweeper:
    """Compares watched folders with one knowledge base's ledger."""

    def __init__(self, ledger: Ledger, presence: Presence) -> None:
        self._ledger = ledger
        self._presence = presence

    def sweep(self, root: Path, since: float = inf, until: float = inf) -> list[FileEvent]:
        """What the ledger does not know yet: moved, changed and deleted files. A file's own time
        says when it changed if that is between `since`, the last sweep, and `until`, now; an older
        one may just have been moved here. Epoch seconds."""
        if not self._presence.is_there(root):
            return []
        disk, mounts = _walk(root)
        self._presence.saw(root, mounts)
        known = {file.path: file for file in self._ledger.all(str(root))}
        new = {path: found for path, found in disk.items() if path not in known}
        folded = {path.casefold(): path for path in disk}
        gone = [
            file
            for path, file in known.items()
            if path not in disk
            and _is_gone(root, path, folded.get(path.casefold(), ""))
            and self._presence.is_there(root, path)
        ]
        moves = _moves(gone, new)
        events = [FileEvent("moved", str(root), old, path) for old, path in moves.items()]
        events += [
            FileEvent("changed", str(root), path, at=_within(since, found.mtime_ns / 1e9, until))
            for path, found in disk.items()
            if path not in moves.values() and _differs(known.get(path), found)
        ]
        events += [FileEvent("deleted", str(root), f.path) for f in gone if f.path not in moves]
        return events


def _walk(root: Path) -> tuple[dict[str, Stamp], list[Path]]:
    """The files that count below `root`, by their relative paths; and the folders there in which
    something is mounted: a folder of the same device, or one of another than the folder above."""
    out: dict[str, Stamp] = {}
    bound = points(root) - {root}
    devices: dict[Path, int] = {}
    mounts: list[Path] = []
    for folder, path in followed(root):
        try:
            if path is None:
                devices[folder] = folder.stat().st_dev
                other = devices.get(folder.parent, devices[folder]) != devices[folder]
                if other or folder in bound:
                    mounts.append(folder)
            elif (found := stamp(root, path)) is not None:
                out[path] = found
        except OSError as error:
            unlisted(error)
    return out, mounts


def _differs(known: File | None, found: Stamp) -> bool:
    """Whether a file on disk is work. What is in progress already is left alone."""
    if known is None:
        return True
    if known.status in ("in_progress", "cancelled"):
        return False
    return (known.size, known.mtime_ns) != (found.size, found.mtime_ns)


def _within(since: float, at: float, until: float) -> float | None:
    return at if since <= at <= until else None


def _is_gone(root: Path, path: str, alike: str) -> bool:
    """Whether a file that the walk did not meet is gone, not merely out of sight. On a disk that
    does not tell them apart, its name in another case (`alike`) is what it was renamed to."""
    try:
        return stamp(root, path) is None or (bool(alike) and same_entry(root, path, alike))
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
