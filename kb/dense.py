"""The dense index: FAISS over the chunks' vectors. The only file that imports faiss.

Held in memory by each reader and filled from SQLite, so no vector is in a second place on disk. A
small one is an exact scan over float16 codes. A large one is given `Cells` and looks only into
those whose centres are nearest to the question (docs/decisions/009-dense-at-scale.md).
"""

from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from kb.cells import Cells
from kb.records import Changes

Vector = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint8]

PROBED = 16
"""One cell in so many is looked into."""
_FEWEST = 8
"""A cell of fewer passages of the sample is given up: a centre shall never be a passage's vector,
which would outlive it."""

# One thread: right after an embedding torch's threads still spin, and a second one here waits for
# a core. On two cores the 95th percentile of a search falls from 9-11 ms to 6 ms.
faiss.omp_set_num_threads(1)


class DenseIndex:
    """Inner product of unit vectors, that is the cosine. Not thread-safe; its owner locks."""

    def __init__(self, dimensions: int, cells: Cells | None = None) -> None:
        self.dimensions = dimensions
        self._cells = cells
        self._generation = 0
        self._index = _flat(dimensions) if cells is None else _divided(dimensions, cells)
        self._copy = _GpuCopy()

    @property
    def generation(self) -> int:
        return self._generation

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def add(self, ids: Ids, codes: Codes) -> None:
        """`codes` are the vectors' float16 bytes, shape (n, 2 * dimensions)."""
        if self._cells is not None:
            codes = self._with_cells(self._cells, ids, codes)
        self._index.add_sa_codes(np.ascontiguousarray(codes), ids)
        self._copy.drop()

    def filled_to(self, generation: int) -> None:
        """What was added is what lives at this generation."""
        self._generation = generation

    def catch_up(self, changes: Changes) -> None:
        if changes.fresh:
            self._index.reset()
        if changes.removed:
            # Each is quick for its own index alone: the flat one asks about every id it holds.
            kind = faiss.IDSelectorBatch if self._cells is None else faiss.IDSelectorArray
            self._index.remove_ids(kind(np.asarray(changes.removed, np.int64)))
        if changes.added:
            ids = np.asarray([entry.id for entry in changes.added], np.int64)
            self.add(ids, as_codes([entry.vector for entry in changes.added]))
        self._generation = changes.generation
        self._copy.drop()

    def search(self, query: Vector, k: int) -> list[tuple[int, float]]:
        """`query` has shape (dimensions,) and unit length; scores are cosines."""
        k = min(k, len(self))
        if k <= 0:
            return []
        scores, ids = self._copy.of(self._index).search(query.reshape(1, -1), k)
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

    def _with_cells(self, cells: Cells, ids: Ids, codes: Codes) -> Codes:
        """FAISS's form of a code in a divided index: the number of its cell, then the vector."""
        known = cells.of(ids)
        (new,) = np.nonzero(known < 0)
        if len(new):
            known[new] = nearest(self._index.quantizer, as_vectors(codes[new]))
        width = self._index.coarse_code_size()
        numbers = known.astype("<i8").view(np.uint8).reshape(-1, 8)[:, :width]
        return np.hstack([numbers, codes])


def as_codes(vectors: Sequence[bytes]) -> Codes:
    """float16 bytes as they are stored, one row a vector."""
    return np.frombuffer(b"".join(vectors), np.uint8).reshape(len(vectors), -1)


def as_vectors(codes: Codes) -> Vector:
    """Codes as float32, shape (n, dimensions)."""
    return codes.view(np.float16).astype(np.float32)


def improve(sample: Vector, centres: Vector | int) -> Vector:
    """One round of k-means (FAISS's) over unit vectors: from so many random ones of the sample, or
    from given centres to better ones. Cells of very few passages fall away."""
    count = centres if isinstance(centres, int) else len(centres)
    kmeans = faiss.Kmeans(
        sample.shape[1],
        count,
        niter=1,
        spherical=True,
        seed=1,
        min_points_per_centroid=1,
        max_points_per_centroid=len(sample),
    )
    kmeans.train(sample, init_centroids=None if isinstance(centres, int) else centres)
    return np.asarray(kmeans.centroids, np.float32)


def crowded(sample: Vector, centres: Vector) -> Vector:
    """Those centres around which enough of the sample lies; at the least, the middle of it all."""
    sizes = np.bincount(nearest(quantizer(centres), sample), minlength=len(centres))
    kept = centres[sizes >= _FEWEST]
    middle = sample.mean(axis=0, keepdims=True)
    return kept if len(kept) else np.asarray(middle / np.linalg.norm(middle), np.float32)


def quantizer(centres: Vector) -> Any:
    """FAISS's index of the centres."""
    made = faiss.IndexFlatIP(centres.shape[1])
    made.add(centres)
    return made


def nearest(centres: Any, vectors: Vector) -> npt.NDArray[np.int32]:
    """The number of the nearest centre (see `quantizer`) of each vector."""
    _, found = centres.search(vectors, 1)
    return np.asarray(found[:, 0], np.int32)


def _flat(dimensions: int) -> Any:
    flat = faiss.IndexScalarQuantizer(
        dimensions, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    )
    return faiss.IndexIDMap2(flat)


def _divided(dimensions: int, cells: Cells) -> Any:
    count = len(cells.centres)
    index = faiss.IndexIVFScalarQuantizer(
        quantizer(cells.centres),
        dimensions,
        count,
        faiss.ScalarQuantizer.QT_fp16,
        faiss.METRIC_INNER_PRODUCT,
        False,  # the vectors themselves, not their distance from the centre: they stay exact
    )
    index.is_trained = True  # float16 needs no training, and the centres are there
    index.nprobe = max(1, -(-count // PROBED))
    index.set_direct_map_type(index.direct_map.Hashtable)  # for `cosines`, and quick removal
    return index


class _GpuCopy:
    """The index on the GPU, where faiss-gpu and a GPU are there. Copying costs more than a search,
    so a copy is made by the second search that finds the index unchanged. Not measured."""

    def __init__(self) -> None:
        self._searched = False
        self._index: Any = None

    def drop(self) -> None:
        self._searched, self._index = False, None

    def of(self, index: Any) -> Any:
        """What to search: the copy, or the index itself."""
        if self._index is None and self._searched and faiss.get_num_gpus():
            options = faiss.GpuClonerOptions()
            options.useFloat16 = True
            self._index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index, options)
        self._searched = True
        return index if self._index is None else self._index
