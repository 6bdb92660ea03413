"""A large dense index, which scans sketches, finds what an exact one does; readers stay small."""

import random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from kb import dense, following
from kb.dense import DenseIndex
from kb.feed import Feed
from kb.records import Changes, Entry
from kb.search import KnowledgeBase
from tests.kb.bases import Base, unit
from tests.kb.test_compact import compact

DIMENSIONS = 256


def codes(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    return vectors.astype(np.float16).view(np.uint8)


def entries(vectors: npt.NDArray[np.float32], start: int) -> tuple[Entry, ...]:
    rows = enumerate(vectors.astype(np.float16), start=start)
    return tuple(Entry(i, "", "", v.tobytes()) for i, v in rows)


def filled(vectors: npt.NDArray[np.float32], exact: int) -> DenseIndex:
    index = DenseIndex(vectors.shape[1], exact)
    index.add(np.arange(len(vectors), dtype=np.int64), codes(vectors))
    index.filled_to(1)
    return index


def near_each_other(n: int) -> npt.NDArray[np.float32]:
    """In one narrow cone, as embeddings of texts lie: any two have a cosine of about 0.8."""
    rng = np.random.default_rng(2)
    out = 2 * unit(rng, 1, DIMENSIONS) + unit(rng, n, DIMENSIONS)
    return np.asarray(out / np.linalg.norm(out, axis=1, keepdims=True), np.float32)


def held(kb: KnowledgeBase) -> dict[int, float]:
    """All that its dense half finds, with cosines, after it caught up."""
    kb.catch_up()
    return dict(kb.following.dense.search(unit(np.random.default_rng(5), 1, 64)[0], 10_000))


def expected(base: Base) -> dict[int, float]:
    """The same by comparing with every living vector of the store."""
    query = unit(np.random.default_rng(5), 1, 64)[0]
    rows = base.store.rows("SELECT id, vector FROM chunks WHERE dead_seq IS NULL")
    return {
        r["id"]: float(np.frombuffer(r["vector"], np.float16).astype(np.float32) @ query)
        for r in rows
    }


def fill(base: Base, documents: int, start: int = 0) -> None:
    for n in range(start, start + documents):
        base.put(f"{n}.md", f"okapi w{n} x{n % 7}. " * 3, publish=False)
    base.publish()


def test_nearly_all_of_the_exact_nearest_are_found_with_exact_cosines() -> None:
    vectors = near_each_other(6000)
    large, exact = filled(vectors, 1000), filled(vectors, 10**6)
    assert large._sketches is not None and exact._sketches is None
    shares = []
    for query in vectors[::60]:
        wanted, found = dict(exact.search(query, 10)), dict(large.search(query, 10))
        shares.append(len(wanted.keys() & found.keys()) / 10)
        assert found == pytest.approx(large.cosines(query, list(found)), abs=1e-5)
    assert np.mean(shares) >= 0.98


def test_one_that_outgrows_the_exact_scan_loses_nothing() -> None:
    vectors = near_each_other(3000)
    index = DenseIndex(DIMENSIONS, 1000)
    for start in range(0, 3000, 250):
        index.catch_up(Changes(start + 1, entries(vectors[start : start + 250], start)))
        assert (index._sketches is not None) is (start + 250 > 1000)
        newest = start + 249
        for i in (0, start, newest):
            assert index.search(vectors[i], 1)[0][0] == i
    assert len(index) == 3000


def test_removed_vectors_crowd_out_no_living_one() -> None:
    """One document, written again and again: its old versions are nearest to the question too."""
    vectors = near_each_other(3000)
    index = filled(vectors, 1000)
    query = vectors[7]
    for n in range(1100):
        index.catch_up(Changes(n + 2, entries(query[None], 3000 + n), (2999 + n,) if n else ()))
        if n % 100 == 0:
            assert {i for i, _ in index.search(query, 2)} == {7, 3000 + n}
    assert len(index) == 3001
    assert len(index._ids) < 3001 + 1000, "they are cleared away"
    expected = filled(np.vstack([vectors, query]), 10**6).search(query, 20)
    found = [s for _, s in index.search(query, 20)]
    assert found == pytest.approx([s for _, s in expected], abs=1e-5)


@pytest.mark.parametrize("exact", [1, 40, 10**6])
@pytest.mark.parametrize("seed", range(6))
def test_following_and_opening_anew_hold_the_same_whatever_happened(
    base: Base, seed: int, exact: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Documents come, change and go, compactions pass, and readers miss any of it. Each then holds
    exactly what lives, with exact cosines."""
    rng = random.Random(seed)
    monkeypatch.setattr(following, "EXACT", exact)
    monkeypatch.setattr(following, "_FAR", 40)
    monkeypatch.setattr(following, "_SLICE", 16)
    monkeypatch.setattr(dense, "_SLICE", 16)
    monkeypatch.setattr(dense, "_DEAD", 10)
    fill(base, rng.randrange(20, 60))
    readers = [base.reader()]
    for step in range(50):
        match rng.randrange(8):
            case 0:
                compact(base, rng.choice([2, 10_000]))
            case 1:
                readers.append(base.reader())
            case 2:
                fill(base, rng.randrange(1, 50), rng.randrange(60))
            case 3 | 4 if base.ledger.find("/watched", path := f"{rng.randrange(60)}.md"):
                base.remove(path)
            case 5:
                assert held(rng.choice(readers)) == pytest.approx(expected(base), abs=1e-5)
            case _:
                base.put(f"{rng.randrange(60)}.md", f"bongo v{step}. " * rng.randrange(1, 30))
    for reader in [*readers, base.reader()]:
        assert held(reader) == pytest.approx(expected(base), abs=1e-5)
        assert len(reader.following.dense) == len(expected(base))


def test_what_dies_while_a_reader_opens_is_forgotten_by_its_first_search(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_SLICE", 4)
    fill(base, 12)
    add = DenseIndex.add

    def slow(index: DenseIndex, ids: Any, found: Any) -> None:
        if ids[0] == 5:  # between two slices
            for path in ("0.md", "11.md"):
                base.remove(path)
            base.put("1.md", "a bongo")
        add(index, ids, found)

    monkeypatch.setattr(DenseIndex, "add", slow)
    assert held(base.reader()) == pytest.approx(expected(base), abs=1e-5)


def test_a_reader_far_behind_reads_in_slices_and_never_all_changes(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_FAR", 10)
    reader = base.reader()
    fill(base, 11)
    taken: list[Changes] = []
    real = Feed.changes

    def changes(feed: Feed, since: int) -> Changes:
        found = real(feed, since)
        if feed._store is reader.store:
            taken.append(found)
        return found

    monkeypatch.setattr(Feed, "changes", changes)
    assert len(held(reader)) == 11 and not taken
    fill(base, 10, 11)
    assert len(held(reader)) == 21 and len(taken) == 1


def test_a_search_uses_one_thread_whichever_thread_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """FAISS's setting is of the thread that sets it: one made at import would not hold here."""
    index = filled(unit(np.random.default_rng(0), 10, 16), 100)
    dense.faiss.omp_set_num_threads(2)
    index.search(np.ones(16, np.float32), 1)
    assert dense.faiss.omp_get_max_threads() == 1


def test_a_gpu_searches_a_copy_that_is_made_when_the_index_keeps_still(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stand-in for faiss-gpu: its copy is the index as it was."""
    copies: list[Any] = []

    def clone(resources: object, device: int, index: Any, options: Any) -> Any:
        copies.append(dense.faiss.clone_index(index))
        return copies[-1]

    monkeypatch.setattr(dense.faiss, "get_num_gpus", lambda: 1)
    for name, value in (
        ("StandardGpuResources", object),
        ("GpuClonerOptions", type("Options", (), {})),
        ("index_cpu_to_gpu", clone),
    ):
        monkeypatch.setattr(dense.faiss, name, value, raising=False)
    vectors = unit(np.random.default_rng(3), 20, 16)
    index = filled(vectors, 10)
    first = index.search(vectors[4], 5)
    assert not copies, "it may change at once again"
    assert index.search(vectors[4], 5) == index.search(vectors[4], 5) == first
    assert len(copies) == 1
    index.catch_up(Changes(2, removed=(first[0][0],)))
    for _ in range(3):
        assert [i for i, _ in index.search(vectors[4], 4)] == [i for i, _ in first[1:]]
    assert len(copies) == 2


def test_without_a_gpu_nothing_is_copied() -> None:
    index = filled(unit(np.random.default_rng(3), 20, 16), 10)
    for _ in range(3):
        assert index._copy.of(index._flat) is None
