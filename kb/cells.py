"""The file beside a large knowledge base that says which vectors lie near each other. No vectors.

The space is divided into cells, each around a centre. The file holds the centres and the cell of
every passage that was alive when it was made, so that a reader can sort the vectors that it takes
from SQLite into cells without comparing each with every centre. It is derived, small (2 MB of
centres, 12 bytes a passage) and optional: without it, or with one that cannot be used, all is
found as well, only more slowly. Knows neither SQLite nor FAISS.
"""

import io
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kb.errors import StoreBroken, StoreDown

CELLS = "cells"
"""In the knowledge base's folder: four bytes of CRC-32, then an archive as numpy writes it."""


@dataclass(frozen=True, slots=True)
class Cells:
    """`centres` is float32 of shape (cells, dimensions); `ids` are passages in rising order, and
    `cells` says for each where it lies. `generation` is the knowledge base's when they were read,
    `embedder` the name of the vector space."""

    embedder: str
    generation: int
    centres: npt.NDArray[np.float32]
    ids: npt.NDArray[np.int64]
    cells: npt.NDArray[np.int32]

    def of(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """The cell of each passage, -1 where it is not known."""
        if not len(self.ids):
            return np.full(len(ids), -1, np.int32)
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[at] == ids, self.cells[at], np.int32(-1)).astype(np.int32)


def write(folder: Path, cells: Cells) -> None:
    """Whole or not at all: written beside, made durable, then renamed. Raises StoreDown."""
    parts = io.BytesIO()
    np.savez(
        parts,
        embedder=np.array(cells.embedder),
        generation=np.array(cells.generation),
        centres=cells.centres,
        ids=cells.ids,
        cells=cells.cells,
    )
    content = parts.getvalue()
    beside = folder / f".{CELLS}"
    try:
        with beside.open("wb") as file:
            file.write(_sum(content) + content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(folder / CELLS)
    except OSError as error:
        beside.unlink(missing_ok=True)  # what is half written fills the disk
        raise StoreDown(f"{CELLS} cannot be written: {error}") from error


def read(folder: Path) -> Cells | None:
    """None where there is no file. Raises StoreBroken for a damaged one."""
    try:
        whole = (folder / CELLS).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreBroken(f"{CELLS} cannot be read: {error}") from error
    content = whole[4:]
    if not content or whole[:4] != _sum(content):
        raise StoreBroken(f"{CELLS} is damaged")
    with np.load(io.BytesIO(content)) as parts:
        return Cells(
            str(parts["embedder"]),
            int(parts["generation"]),
            parts["centres"],
            parts["ids"],
            parts["cells"],
        )


def remove(folder: Path) -> None:
    (folder / CELLS).unlink(missing_ok=True)


def stamp(folder: Path) -> tuple[int, int] | None:
    """What changes when the file is written again; None where there is none."""
    try:
        found = (folder / CELLS).stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def _sum(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(4, "little")
