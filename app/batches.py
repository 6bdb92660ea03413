"""File batches: which files were put into a vector store together. One small file on disk each.

How far the files are is asked of the shelf, so that there is no second place for that truth.
"""

import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from app.errors import UnknownFile

_ID = re.compile(r"vsfb_[0-9a-f]{24}")


@dataclass(frozen=True, slots=True)
class Batch:
    id: str
    store_id: str
    created_at: int
    file_ids: tuple[str, ...]


class Batches:
    """The batches of a home, in `folder`, below the id of their vector store. Blocking."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._clock = clock

    def add(self, store_id: str, file_ids: Sequence[str]) -> Batch:
        """Remember that these were attached together. Durable on return."""
        batch_id = f"vsfb_{secrets.token_hex(12)}"
        batch = Batch(batch_id, store_id, int(self._clock()), tuple(dict.fromkeys(file_ids)))
        folder = self._folder / store_id
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f".{batch.id}"
        with beside.open("x", encoding="utf-8") as file:
            json.dump(asdict(batch), file)
            file.flush()
            os.fsync(file.fileno())
        beside.rename(folder / f"{batch.id}.json")
        return batch

    def forget(self, store_id: str) -> None:
        """The vector store is gone."""
        shutil.rmtree(self._folder / store_id, ignore_errors=True)

    def get(self, store_id: str, batch_id: str) -> Batch:
        """Raises UnknownFile."""
        # The id comes from a client and becomes a path.
        file = self._folder / store_id / f"{batch_id}.json"
        if not _ID.fullmatch(batch_id) or not file.is_file():
            raise UnknownFile(f"there is no file batch {batch_id!r} in vector store {store_id}")
        row = json.loads(file.read_bytes())
        return Batch(**{**row, "file_ids": tuple(row["file_ids"])})
