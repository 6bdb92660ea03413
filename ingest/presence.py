"""Whether watched folders, and disks mounted below them, are really there.

A folder that is missing, or holds no document and is another folder of a disk than before, is one
whose disk is not mounted: then nothing below it is known to be deleted. A folder that is bound to
its place (`mount --bind`) is a disk in that sense. What people leave in a mount point (`.gitkeep`,
an empty NOT_MOUNTED) is no document. Says so once, and when it is back.
"""

import logging
from pathlib import Path

from ingest.files import followed, stamp
from ingest.mounts import is_mount, shown
from kb.store import Store

log = logging.getLogger(__name__)


class Presence:
    """Remembers what was seen in one knowledge base's store, so that it knows it after a
    restart: a device's number and, but in older stores, the folder of it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._absent: set[Path] = set()
        self._mounts: dict[Path, list[Path]] = {}

    def is_there(self, root: Path, path: str = "") -> bool:
        """Whether what the disk says of `path` in `root` can be believed; empty: of the root."""
        above = [m for m in self._below(root) if (root / path).is_relative_to(m)] if path else []
        return all(self._is_present(place) for place in (root, *above))

    def saw(self, root: Path, mounts: list[Path]) -> None:
        """In these folders below `root` something is mounted. One that was mounted, and is known
        to be an ordinary folder now, may be deleted like any other."""
        for mount in mounts:
            self._is_present(mount)
        for place in set(self._below(root)).difference(mounts):
            if self._is_present(place) and not is_mount(place):
                with self._store.transaction() as db:
                    db.execute("DELETE FROM meta WHERE key = ?", (f"device {place}",))
                self._mounts[root].remove(place)
        if new := set(mounts).difference(self._below(root)):
            self._mounts[root] += sorted(new)

    def _below(self, root: Path) -> list[Path]:
        if root not in self._mounts:
            start = f"device {root}/"
            rows = self._store.rows(
                "SELECT key FROM meta WHERE substr(key, 1, ?) = ?", (len(start), start)
            )
            self._mounts[root] = [Path(str(r["key"]).removeprefix("device ")) for r in rows]
        return self._mounts[root]

    def _is_present(self, place: Path) -> bool:
        key = f"device {place}"
        known = self._store.meta(key)
        seen = _seen(place)
        present = bool(seen) and (_is_same(known, seen) or _holds_documents(place))
        if present:
            if known != seen:
                self._store.set_meta(key, seen)
            if place in self._absent:
                log.info("%s is back", place)
            self._absent.discard(place)
        elif place not in self._absent:
            log.warning("%s is missing; what is known of it is kept until it is back", place)
            self._absent.add(place)
        return present


def _seen(place: Path) -> str:
    """Empty for a folder that is not there, or that cannot be looked into."""
    try:
        found = shown(place)
    except OSError:
        return ""
    folder = found.folder.encode(errors="backslashreplace").decode()  # a name may be no text
    return f"{found.device} {folder}" if folder else str(found.device)


def _is_same(known: str | None, seen: str) -> bool:
    """As far as both tell; a place that is not known yet can only be what it is."""
    if known is None:
        return True
    (one, _, folder), (other, _, another) = known.partition(" "), seen.partition(" ")
    return one == other and (folder == another or not (folder and another))


def _holds_documents(place: Path) -> bool:
    return any(path is not None and _is_document(place, path) for _, path in followed(place))


def _is_document(place: Path, path: str) -> bool:
    try:
        found = stamp(place, path)
    except OSError:
        return False
    return found is not None and found.size > 0
