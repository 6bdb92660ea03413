"""Folders that ingest does not watch live, because the kernel gives it no more of what that takes.

The writer notes how many, `ingest status` and the server show it. Knows no folder on disk.
"""

import json
from collections.abc import Mapping
from typing import Literal, cast

from kb.store import Store

Lack = Literal["watches", "instances", "files"]
"""What there is no more of: inotify watches, inotify instances, or open files."""
_KEY = "unwatched"
_LACK = "unwatched_lack"


def note(store: Store, folders: Mapping[str, int], lack: Lack) -> None:
    """How many folders below each of these (a root counts too) are seen by the sweep only."""
    for key, said in ((_KEY, json.dumps(folders)), (_LACK, lack)):
        if store.meta(key) != said:
            store.set_meta(key, said)


def unwatched(store: Store) -> dict[str, int]:
    """What was noted last; roots that are watched whole are left out."""
    return {str(root): int(n) for root, n in json.loads(store.meta(_KEY) or "{}").items()}


def lack(store: Store) -> Lack:
    """Why, if any are unwatched."""
    return cast(Lack, store.meta(_LACK) or "watches")  # older stores know of no other
