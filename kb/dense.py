"""The dense index: FAISS over the chunks' vectors. The only file that imports faiss.

Held in memory by each reader and filled from SQLite, so there is no index file that could tear.
An exact scan over float16 codes: at 30,000 passages it takes about a millisecond, and it is never
wrong; larger collections want a graph (docs/decisions/002-dense-index.md).
"""

from collections.abc import Sequence

import faiss
import numpy as np
import numpy.typing as npt

from kb.records import Changes

Vector = npt.NDArray[np.float32]

# One thread: right after an embedding torch's threads still spin, and a second one here waits for
# a core. On two cores the 95th percentile of a search falls from 9-11 ms to 6 ms.
faiss.omp_set_num_threads(1)


class DenseIndex:
    """Inner product of unit vectors, that is the cosine. Not thread-safe; its owner locks."""

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self._generation = 0
        flat = faiss.IndexScalarQuantizer(
            dimensions, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        self._index = faiss.IndexIDMap2(flat)

    @property
    def generation(self) -> int:
        return self._generation

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def catch_up(self, changes: Changes) -> None:
        if changes.fresh:
            self._index.reset()
        if changes.removed:
            self._index.remove_ids(faiss.IDSelectorBatch(np.asarray(changes.removed, np.int64)))
        if changes.added:
            ids = np.asarray([entry.id for entry in changes.added], np.int64)
            codes = np.frombuffer(b"".join(e.vector for e in changes.added), np.float16)
            vectors = codes.reshape(len(ids), self.dimensions).astype(np.float32)
            self._index.add_with_ids(vectors, ids)
        self._generation = changes.generation

    def search(self, query: Vector, k: int) -> list[tuple[int, float]]:
        """`query` has shape (dimensions,) and unit length; scores are cosines."""
        k = min(k, len(self))
        if k <= 0:
            return []
        scores, ids = self._index.search(query.reshape(1, -1), k)
        return [(int(i), float(s)) for i, s in zip(ids[0], scores[0], strict=True) if i >= 0]

    def cosines(self, query: Vector, ids: Sequence[int]) -> dict[int, float]:
        """The cosine of given chunks, for those that only the lexical half found."""
        out = {}
        for i in ids:
            try:
                out[i] = float(self._index.reconstruct(i) @ query)
            except RuntimeError:  # FAISS's word for an id it does not hold: not caught up yet
                continue
        return out
