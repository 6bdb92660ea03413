"""The dense index: FAISS over the chunks' vectors. The only file that imports faiss.

Held in memory by each reader and filled from SQLite, so there is no index file that could tear or
outlive a deletion. A small one is an exact scan over float16 codes. A large one scans a sketch of
each vector, one bit a dimension, and compares the best of those exactly: the scan reads a
fourteenth of the memory, and still looks at every passage (docs/decisions/009-dense-at-scale.md).
"""

import os
from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from kb.languages import Balance, Languages
from kb.records import Changes

Vector = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint8]

EXACT = 50_000
"""Up to so many vectors the scan is exact, and takes 3 ms at most."""
_SKETCHED = 768
"""At least so many, and four times as many as are asked for, are compared after the sketches."""
_SLICE = 10_000
"""Vectors that are sketched at once."""
_DEAD = 1000
"""Removed vectors that a large index passes over before it clears them away (0.3 s)."""
_MOST_ON_GPU = 2048
"""FAISS finds no more than so many at once there."""


class DenseIndex:
    """Inner product of unit vectors, that is the cosine. Ids come in rising order, as SQLite gives
    them. Not thread-safe; its owner locks. Up to `exact` vectors it finds exactly the nearest;
    cosines are exact always."""

    _flat: Any
    _sketches: Any
    _ids: Ids
    _alive: npt.NDArray[np.bool_]
    _dead: int
    _copy: "_GpuCopy"
    balance: Balance | None
    """Of the passages' languages, where the embedder tells them apart."""

    def __init__(
        self, dimensions: int, exact: int = EXACT, languages: Languages | None = None
    ) -> None:
        self.dimensions = dimensions
        self._exact = exact
        self._languages = languages
        self._generation = 0
        self._forget()

    @property
    def generation(self) -> int:
        return self._generation

    def __len__(self) -> int:
        return len(self._ids) - self._dead

    def add(self, ids: Ids, codes: Codes) -> None:
        """`codes` are the vectors' float16 bytes, shape (n, 2 * dimensions)."""
        self._flat.add_sa_codes(codes)
        self._ids = np.concatenate([self._ids, ids])
        self._alive = np.concatenate([self._alive, np.ones(len(ids), np.bool_)])
        if self.balance is not None:
            self.balance.add(_vectors_of(codes))
        if self._sketches is not None:
            self._sketches.add(_vectors_of(codes))
        self._copy.drop()

    def filled_to(self, generation: int) -> None:
        """What was added is all that lives at this generation."""
        self._generation = generation
        self._sketch()

    def catch_up(self, changes: Changes) -> None:
        if changes.fresh:
            self._forget()
        if changes.removed:
            rows = self._rows(changes.removed)
            rows = rows[rows >= 0]
            self._alive[rows] = False
            if self.balance is not None:
                self.balance.remove(self._vectors(rows))
            self._clear_away()
        if changes.added:
            ids = np.asarray([entry.id for entry in changes.added], np.int64)
            self.add(ids, as_codes([entry.vector for entry in changes.added]))
        self.filled_to(changes.generation)

    def search(self, query: Vector, k: int) -> list[tuple[int, float]]:
        """`query` has shape (dimensions,) and unit length; scores are cosines."""
        k = min(k, len(self))
        if k <= 0:
            return []
        scores, rows = (found[0] for found in self._nearest(query.reshape(1, -1), k + self._dead))
        living = (rows >= 0) & self._alive[rows]
        ids = self._ids[rows[living][:k]]
        return list(zip(ids.tolist(), scores[living][:k].tolist(), strict=True))

    def cosines(self, query: Vector, ids: Sequence[int]) -> dict[int, float]:
        """The inner product of given chunks with a vector of any length, for those that only the
        lexical half found. One that is not held, since it is not caught up yet, is left out."""
        rows = self._rows(ids)
        rows = rows[rows >= 0]
        if not len(rows):
            return {}
        scores = self._vectors(rows) @ query
        return dict(zip(self._ids[rows].tolist(), scores.tolist(), strict=True))

    # -- rows: the vectors in order of their ids, those of removed ones among them ---------------

    def _forget(self) -> None:
        self._flat = faiss.IndexScalarQuantizer(
            self.dimensions, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        self._sketches = None
        self._ids = np.zeros(0, np.int64)
        self._alive = np.zeros(0, np.bool_)
        self._dead = 0
        self._copy = _GpuCopy()
        self.balance = Balance(self._languages) if self._languages else None

    def _rows(self, ids: Sequence[int]) -> Ids:
        """The row of each id, -1 where none lives."""
        if not len(self._ids):
            return np.full(len(ids), -1, np.int64)
        wanted = np.asarray(ids, np.int64)
        rows = np.minimum(np.searchsorted(self._ids, wanted), len(self._ids) - 1)
        return np.where((self._ids[rows] == wanted) & self._alive[rows], rows, -1)

    def _vectors(self, rows: Ids | slice) -> Vector:
        codes = faiss.rev_swig_ptr(self._flat.codes.data(), self._flat.codes.size())
        return _vectors_of(codes.reshape(-1, self._flat.code_size)[rows])

    def _nearest(self, query: Vector, k: int) -> tuple[Vector, Ids]:
        """Cosines and rows, best first, each of shape (1, k) at most; a row of -1 is none."""
        # One thread: right after an embedding torch's threads still spin, and a second one here
        # waits for a core. On two cores the 95th percentile of a search falls from 9-11 ms to 6 ms.
        faiss.omp_set_num_threads(1)  # of the thread that calls, and of no other
        copy = self._copy.of(self._flat)
        if copy is not None:
            found = copy.search(query, min(k, _MOST_ON_GPU))
        elif self._sketches is not None:
            both = faiss.IndexRefine(self._sketches, self._flat)
            both.k_factor = max(4.0, (_SKETCHED + self._dead) / k)
            found = both.search(query, k)
        else:
            found = self._flat.search(query, k)
        scores, rows = found
        return scores, rows

    def _clear_away(self) -> None:
        """At once where that is quick, else when there are many."""
        (dead,) = np.nonzero(~self._alive)
        self._dead = len(dead)
        self._copy.drop()
        if self._sketches is not None and self._dead <= _DEAD:
            return
        for index in (self._flat, self._sketches):
            if index is not None:
                index.remove_ids(faiss.IDSelectorBatch(dead))  # the others keep their order
        self._ids, self._alive = self._ids[self._alive], self._alive[self._alive]
        self._dead = 0

    def _sketch(self) -> None:
        """Make sketches if the index has become large."""
        if self._sketches is not None or len(self._ids) <= self._exact:
            return
        faiss.omp_set_num_threads(os.cpu_count() or 1)
        made = faiss.IndexRaBitQFastScan(self.dimensions, faiss.METRIC_INNER_PRODUCT)
        step = max(1, len(self._ids) // _SLICE)
        made.train(self._vectors(slice(None, None, step)))  # it learns the middle of all vectors
        for start in range(0, len(self._ids), _SLICE):
            made.add(self._vectors(slice(start, start + _SLICE)))
        self._sketches = made


def as_codes(vectors: Sequence[bytes]) -> Codes:
    """float16 bytes as they are stored, one row a vector."""
    return np.frombuffer(b"".join(vectors), np.uint8).reshape(len(vectors), -1)


def _vectors_of(codes: Codes) -> Vector:
    return codes.view(np.float16).astype(np.float32)


class _GpuCopy:
    """The exact index on the GPU, where faiss-gpu and a GPU are there. Copying costs more than a
    search, so it is done by the second search that finds the index unchanged. Not measured."""

    def __init__(self) -> None:
        self._searched = False
        self._index: Any = None

    def drop(self) -> None:
        self._searched, self._index = False, None

    def of(self, index: Any) -> Any:
        """What to search instead of the index, or None."""
        if self._index is None and self._searched and faiss.get_num_gpus():
            options = faiss.GpuClonerOptions()
            options.useFloat16 = True
            self._index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index, options)
        self._searched = True
        return self._index
