"""Whether watched folders, and disks mounted below them, are really there.

A folder that is missing, or holds no document on another device than before, is one whose disk is
not mounted: then nothing below it is known to be deleted. What people leave in a mount point
(`.gitkeep`, an empty NOT_MOUNTED) is no document. Says so once, and when it is back.
"""

import logging
import os
from pathlib import Path

from ingest.files import followed, stamp
from kb.store import Store

log = logging.getLogger(__name__)


class Presence:
    """Remembers devices in one knowledge base's store, so that it knows them after a restart."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._absent: set[Path] = set()
        self._mounts: dict[Path, list[Path]] = {}

    def is_there(self, root: Path, path: str = "") -> bool:
        """Whether what the disk says of `path` in `root` can be believed; empty: of the root."""
        above = [m for m in self._below(root) if (root / path).is_relative_to(m)] if path else []
        return all(self._is_present(place) for place in (root, *above))

    def saw(self, root: Path, mounts: list[Path]) -> None:
        """These folders below `root` are on devices of their own. One that was, and is known to
        be an ordinary folder now, may be deleted like any other."""
        for mount in mounts:
            self._is_present(mount)
        for place in set(self._below(root)).difference(mounts):
            if self._is_present(place) and not place.is_mount():
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
        device = _device(place)
        present = bool(device) and (known in (None, device) or _holds_documents(place))
        if present:
            if known != device:
                self._store.set_meta(key, device)
            if place in self._absent:
                log.info("%s is back", place)
            self._absent.discard(place)
        elif place not in self._absent:
            log.warning("%s is missing; what is known of it is kept until it is back", place)
            self._absent.add(place)
        return present


def _device(place: Path) -> str:
    """Empty for a folder that is not there, or that cannot be looked into."""
    try:
        with os.scandir(place):
            return str(place.stat().st_dev)
    except OSError:
        return ""


def _holds_documents(place: Path) -> bool:
    return any(path is not None and _is_document(place, path) for _, path in followed(place))


def _is_document(place: Path, path: str) -> bool:
    try:
        found = stamp(place, path)
    except OSError:
        return False
    return found is not None and found.size > 0
