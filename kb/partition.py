"""Divides a large knowledge base into cells: when that is wanted, and the steps that do it.

For the one writing process, between other work, as with compaction: each step takes a second at
most, and a crash costs only the work, since the file of cells is renamed into place last. What the
file is for: `kb.cells`.
"""

import random
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from kb import cells
from kb.cells import Cells
from kb.dense import as_codes, as_vectors, crowded, improve, nearest, quantizer
from kb.errors import StoreBroken
from kb.store import Store

_GROWTH = 0.2
"""Share of passages that came since, at which it is done again."""
_PER_CENTRE = 40
"""Passages of the sample for a centre."""
_MOST = 1024
"""Cells. More cost the writer seconds and save the reader little (the decision has figures)."""
_ROUNDS = 10
_SLICE = 5000
"""Vectors read and compared in one step."""


def usable(store: Store, exact: int) -> Cells | None:
    """The cells beside a store of more than `exact` passages, if they are of its vectors and its
    past. Raises StoreBroken for a damaged file."""
    if store.counts()["chunks"] <= exact:
        return None
    made = cells.read(store.file.parent)
    if made is None or made.embedder != store.meta("embedder"):
        return None
    return made if made.generation <= store.generation() else None


def is_due(store: Store, exact: int) -> bool:
    """Whether the store has more than `exact` passages and its cells are missing, damaged or no
    longer typical of it; or fewer, and has cells."""
    if (alive := store.counts()["chunks"]) <= exact:
        return cells.stamp(store.file.parent) is not None
    try:
        made = usable(store, exact)
    except StoreBroken:
        return True
    return made is None or store.is_far(made.generation, int(_GROWTH * alive))


def partition(store: Store, exact: int) -> Iterator[None]:
    """The steps. Raises StoreDown where the disk is full."""
    generation = store.generation()
    if store.counts()["chunks"] <= exact:
        cells.remove(store.file.parent)
        return
    alive = [r["id"] for r in store.rows("SELECT id FROM chunks WHERE dead_seq IS NULL")]
    count = min(_MOST, max(1, len(alive) // _PER_CENTRE))
    chosen = random.Random(generation).sample(alive, min(len(alive), count * _PER_CENTRE))
    yield
    sample: list[bytes] = []
    for part in _slices(sorted(chosen)):
        sample += _vectors(store, part)
        yield
    if len(sample) < count:  # so much has died meanwhile that it may not be wanted any more
        return
    points = as_vectors(as_codes(sample))
    centres = improve(points, count)
    yield
    for _ in range(_ROUNDS - 1):
        centres = improve(points, centres)
        yield
    centres = crowded(points, centres)
    yield
    known: list[int] = []
    where: list[npt.NDArray[np.int32]] = [np.zeros(0, np.int32)]
    nearby = quantizer(centres)
    for ids, vectors in store.vectors(generation, _SLICE):
        known += ids
        where.append(nearest(nearby, as_vectors(as_codes(vectors))))
        yield
    embedder = store.meta("embedder") or ""
    numbers = np.asarray(known, np.int64)
    made = Cells(embedder, generation, centres, numbers, np.concatenate(where))
    cells.write(store.file.parent, made)
    store.touch()  # so that readers look


def _slices(ids: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(ids), _SLICE):
        yield ids[start : start + _SLICE]


def _vectors(store: Store, ids: list[int]) -> list[bytes]:
    marks = ",".join("?" * len(ids))
    sql = f"SELECT vector FROM chunks WHERE dead_seq IS NULL AND id IN ({marks})"
    return [row["vector"] for row in store.rows(sql, ids)]
