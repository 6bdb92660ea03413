"""Whether watched folders, and disks mounted below them, are really there.

A folder that is missing, or is empty on another device than before, is one whose disk is not
mounted: then nothing below it is known to be deleted. Says so once, and when it is back.
"""

import logging
import os
from pathlib import Path

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
        """These folders below `root` are on devices of their own."""
        for mount in mounts:
            self._is_present(mount)
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
        try:
            device = str(place.stat().st_dev)
            with os.scandir(place) as entries:
                empty = next(entries, None) is None
        except OSError:
            device, empty = "", True
        present = bool(device) and not (empty and known not in (None, device))
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
