"""The dense index: exact cosines over float16 vectors."""

import numpy as np
import numpy.typing as npt
import pytest

from kb.dense import DenseIndex
from kb.records import Changes, Entry
from tests.kb.bases import unit


def filled(n: int, dimensions: int = 32) -> tuple[DenseIndex, npt.NDArray[np.float32]]:
    vectors = unit(np.random.default_rng(3), n, dimensions)
    index = DenseIndex(dimensions)
    entries = (Entry(i, "", "", v.astype(np.float16).tobytes()) for i, v in enumerate(vectors))
    index.catch_up(Changes(1, tuple(entries)))
    return index, vectors


def test_search_is_the_exact_nearest_neighbours() -> None:
    index, vectors = filled(500)
    for query in unit(np.random.default_rng(4), 20, 32):
        cosines = vectors.astype(np.float16).astype(np.float32) @ query
        best = np.argsort(-cosines)[:10]
        found = index.search(query, 10)
        assert [i for i, _ in found] == best.tolist()
        assert np.allclose([s for _, s in found], cosines[best], atol=1e-5)


def test_a_vector_is_nearest_to_itself_with_cosine_one() -> None:
    index, vectors = filled(50)
    for i, vector in enumerate(vectors):
        ((found, score),) = index.search(vector, 1)
        assert found == i
        assert abs(score - 1) < 1e-3


def test_cosines_are_those_of_the_search() -> None:
    index, vectors = filled(40)
    searched = dict(index.search(vectors[7], 40))
    assert index.cosines(vectors[7], range(40)) == pytest.approx(searched, abs=1e-5)


def test_cosines_of_unknown_or_removed_chunks_are_left_out() -> None:
    index, vectors = filled(5)
    index.catch_up(Changes(2, removed=(3,)))
    assert set(index.cosines(vectors[0], [0, 3, 4, 99])) == {0, 4}
    assert index.cosines(vectors[0], []) == {}


def test_its_length_is_what_it_holds() -> None:
    index, _ = filled(5)
    index.catch_up(Changes(2, removed=(0, 1)))
    assert len(index) == 3


def test_an_empty_index_has_no_cosine() -> None:
    assert DenseIndex(4).cosines(np.ones(4, np.float32), [1]) == {}
