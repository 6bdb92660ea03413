"""A divided dense index finds what an undivided one does, whatever happened to its cells."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kb import cells, dense, search
from kb.cells import CELLS, Cells
from kb.dense import DenseIndex, as_codes
from kb.partition import is_due, partition
from kb.records import Changes
from kb.search import KnowledgeBase
from kb.settings import KbSettings
from kb.verify import verify
from tests.kb.bases import Base, unit
from tests.kb.test_compact import compact, listed

LARGE = 30
SETTINGS = KbSettings(exact_passages=LARGE)


def divide(base: Base, steps: int = 10_000) -> None:
    """Divide, or die after so many steps."""
    for number, _ in enumerate(partition(base.store, LARGE), start=1):
        if number == steps:
            return
    base.publish()


def fill(base: Base, documents: int, start: int = 0) -> None:
    for n in range(start, start + documents):
        base.put(f"{n}.md", f"okapi w{n} x{n % 7}. " * 3, publish=False)
    base.publish()


def is_divided(kb: KnowledgeBase) -> bool:
    return kb._dense._cells is not None


def held(kb: KnowledgeBase) -> dict[int, float]:
    """All that its dense half finds, with cosines, after it caught up."""
    kb.catch_up()
    query = unit(np.random.default_rng(5), 1, 64)[0]
    return dict(kb._dense.search(query, 10_000))


def expected(base: Base) -> dict[int, float]:
    """The same by comparing with every living vector of the store."""
    query = unit(np.random.default_rng(5), 1, 64)[0]
    rows = base.store.rows("SELECT id, vector FROM chunks WHERE dead_seq IS NULL")
    return {
        r["id"]: float(np.frombuffer(r["vector"], np.float16).astype(np.float32) @ query)
        for r in rows
    }


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell is looked into, so that a divided index is exact too."""
    monkeypatch.setattr(dense, "PROBED", 1)


def test_it_is_due_when_large_and_again_when_a_fifth_is_new_or_it_became_small(base: Base) -> None:
    fill(base, LARGE)
    assert not is_due(base.store, LARGE)
    fill(base, 1, LARGE)
    assert is_due(base.store, LARGE)
    divide(base)
    assert not is_due(base.store, LARGE)
    fill(base, 6, LARGE + 1)
    assert not is_due(base.store, LARGE)
    fill(base, 4, LARGE + 7)
    assert is_due(base.store, LARGE)
    divide(base)
    for n in range(20):
        base.remove(f"{n}.md")
    assert is_due(base.store, LARGE)
    divide(base)
    assert not (base.folder / CELLS).exists() and not is_due(base.store, LARGE)


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("seed", range(8))
def test_following_and_opening_anew_hold_the_same_whatever_happened(
    base: Base, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Documents come, change and go; cells are made, half made, torn and lost; compactions pass;
    readers miss any of it. Each then holds exactly what lives, with exact cosines."""
    rng = random.Random(seed)
    monkeypatch.setattr(search, "_FAR", 40)
    monkeypatch.setattr(search, "_SLICE", 16)
    fill(base, rng.randrange(20, 60))
    readers = [base.reader(SETTINGS)]
    for step in range(60):
        match rng.randrange(10):
            case 0 | 1:
                divide(base, rng.choice([3, 10_000, 10_000]))
            case 2:
                compact(base, rng.choice([2, 10_000]))
            case 3:
                readers.append(base.reader(SETTINGS))
            case 4 if (base.folder / CELLS).exists():
                file = base.folder / CELLS
                if rng.random() < 0.5:
                    file.unlink()
                else:
                    file.write_bytes(file.read_bytes()[:-1])
            case 5:
                fill(base, rng.randrange(1, 50), rng.randrange(60))
            case 6 if base.ledger.find("/watched", path := f"{rng.randrange(60)}.md"):
                base.remove(path)
            case 7:
                reader = rng.choice(readers)
                assert held(reader) == pytest.approx(expected(base), abs=1e-5)
            case _:
                base.put(f"{rng.randrange(60)}.md", f"bongo v{step}. " * rng.randrange(1, 30))
    for reader in [*readers, base.reader(SETTINGS)]:
        assert held(reader) == pytest.approx(expected(base), abs=1e-5)
    assert verify(listed(base)) in ([], ["cells is damaged (a running ingest makes it again)"])


@pytest.mark.usefixtures("everywhere")
def test_a_reader_that_is_open_takes_up_cells_when_they_are_made(base: Base) -> None:
    fill(base, LARGE)
    reader = base.reader(SETTINGS)
    fill(base, 20, LARGE)
    assert len(held(reader)) == LARGE + 20 and not is_divided(reader)
    divide(base)
    assert len(held(reader)) == LARGE + 20 and is_divided(reader)
    fill(base, 3, LARGE + 20)
    base.remove("4.md")
    assert held(reader) == pytest.approx(expected(base), abs=1e-5)


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("what", ["torn", "other embedder", "newer than the store", "half written"])
def test_cells_that_cannot_be_used_are_passed_over_and_made_again(
    base: Base, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    fill(base, LARGE + 5)
    divide(base)
    made = cells.read(base.folder)
    assert made is not None
    match what:
        case "torn":
            (base.folder / CELLS).write_bytes((base.folder / CELLS).read_bytes()[:-7])
            assert verify(listed(base)) == ["cells is damaged (a running ingest makes it again)"]
        case "other embedder":
            other = Cells(
                "fake-9",
                made.generation,
                unit(np.random.default_rng(0), 3, 9),
                made.ids,
                made.cells,
            )
            cells.write(base.folder, other)
        case "newer than the store":
            newer = base.store.generation() + 1
            cells.write(
                base.folder, Cells(made.embedder, newer, made.centres, made.ids, made.cells)
            )
        case _:  # killed before the rename
            (base.folder / CELLS).rename(base.folder / f".{CELLS}")
    reader = base.reader(SETTINGS)
    assert not is_divided(reader)
    assert held(reader) == pytest.approx(expected(base), abs=1e-5)
    assert ("cells is damaged" in caplog.text) is (what == "torn")
    assert is_due(base.store, LARGE)
    divide(base)
    assert held(reader) == pytest.approx(expected(base), abs=1e-5)
    assert is_divided(reader) and not is_due(base.store, LARGE)
    assert verify(listed(base)) == []


@pytest.mark.usefixtures("everywhere")
def test_cells_of_before_two_compactions_bring_nothing_back_and_are_made_again(base: Base) -> None:
    fill(base, LARGE + 20)
    divide(base)
    for n in range(5):
        base.remove(f"{n}.md")
        assert compact(base)
    reader = base.reader(SETTINGS)
    assert is_divided(reader)
    assert held(reader) == pytest.approx(expected(base), abs=1e-5)
    assert is_due(base.store, LARGE)


@pytest.mark.parametrize("per_centre", [1, 5, 40])
def test_no_vector_of_a_passage_is_among_the_centres(
    base: Base, per_centre: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A centre outlives the passages around it until cells are made again, so it is an average."""
    monkeypatch.setattr("kb.partition._PER_CENTRE", per_centre)
    for n in range(LARGE + 10):  # far from all others, one by one: each wants a cell of its own
        base.put(f"{n}.md", f"only{n} " * 8, publish=False)
    base.publish()
    divide(base)
    made = cells.read(base.folder)
    assert made is not None
    rows = base.store.rows("SELECT vector FROM chunks")
    vectors = dense.as_vectors(as_codes([row["vector"] for row in rows]))
    nearest = (made.centres @ vectors.T).max(axis=1)
    assert (nearest < 0.999).all()


def test_all_dying_while_cells_are_made_ends_it_quietly(base: Base) -> None:
    fill(base, LARGE + 5)
    steps = partition(base.store, LARGE)
    next(steps)
    for n in range(LARGE + 5):
        base.remove(f"{n}.md")
    assert list(steps) == [] or not (base.folder / CELLS).exists()


def test_a_reader_far_behind_reads_in_slices_and_never_all_changes(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_FAR", 10)
    reader = base.reader(SETTINGS)
    fill(base, 11)
    taken: list[Changes] = []
    real = reader.store.changes

    def changes(since: int) -> Changes:
        taken.append(real(since))
        return taken[-1]

    monkeypatch.setattr(reader.store, "changes", changes)
    assert len(held(reader)) == 11 and not taken
    fill(base, 10, 11)
    assert len(held(reader)) == 21 and len(taken) == 1


def test_most_of_the_exact_nearest_are_found_although_few_cells_are_searched() -> None:
    """Vectors lie in heaps, as those of texts do; 20,000 of them, one cell in 16 searched."""
    rng = np.random.default_rng(2)
    heaps = unit(rng, 300, 32)
    noise = 0.6 * rng.standard_normal((20_000, 32)).astype(np.float32) / 32**0.5
    vectors = heaps[rng.integers(0, 300, 20_000)] + noise
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    centres = dense.improve(vectors[:4000], 100)
    for _ in range(4):
        centres = dense.improve(vectors[:4000], centres)
    ids = np.arange(20_000, dtype=np.int64)
    # Half of the passages came after the cells were made.
    where = dense.nearest(dense.quantizer(centres), vectors[:10_000])
    divided = DenseIndex(32, Cells("e", 1, centres, ids[:10_000], where))
    exact = DenseIndex(32)
    codes = vectors.astype(np.float16).view(np.uint8)
    for index in (divided, exact):
        index.add(ids, codes)
    shares = []
    for query in vectors[::100]:
        wanted = {i for i, _ in exact.search(query, 10)}
        shares.append(len(wanted & {i for i, _ in divided.search(query, 10)}) / 10)
    assert divided._index.nprobe == 7
    assert np.mean(shares) >= 0.98


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
    index = DenseIndex(16)
    ids = np.arange(20, dtype=np.int64)
    index.add(ids, vectors.astype(np.float16).view(np.uint8))
    first = index.search(vectors[4], 5)
    assert not copies, "it may change at once again"
    assert index.search(vectors[4], 5) == index.search(vectors[4], 5) == first
    assert len(copies) == 1
    index.catch_up(Changes(2, removed=(first[0][0],)))
    assert [i for i, _ in index.search(vectors[4], 4)] == [i for i, _ in first[1:]]


def test_without_a_gpu_nothing_is_copied(tmp_path: Path) -> None:
    index = DenseIndex(16)
    index.add(np.arange(3, dtype=np.int64), np.zeros((3, 32), np.uint8))
    for _ in range(3):
        assert index._copy.of(index._index) is index._index
