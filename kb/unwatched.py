"""Folders that ingest does not watch live, because the kernel gives it no more watches.

The writer notes how many, `ingest status` and the server show it. Knows no folder on disk.
"""

import json
from collections.abc import Mapping

from kb.store import Store

_KEY = "unwatched"


def note(store: Store, folders: Mapping[str, int]) -> None:
    """How many folders below each of these (a root counts too) are seen by the sweep only."""
    said = json.dumps(folders)
    if store.meta(_KEY) != said:
        store.set_meta(_KEY, said)


def unwatched(store: Store) -> dict[str, int]:
    """What was noted last; roots that are watched whole are left out."""
    return {str(root): int(n) for root, n in json.loads(store.meta(_KEY) or "{}").items()}
