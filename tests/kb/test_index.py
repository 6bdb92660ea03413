"""The contract that both indexes fulfil, asked of each in the same words."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kb.dense import DenseIndex
from kb.embedding import FakeEmbedder
from kb.index import Index
from kb.lexical import LexicalIndex
from kb.records import Changes
from kb.words import words
from tests.kb.bases import added, entry

DIMENSIONS = 16


class Subject:
    """An index, and how a question is put to it."""

    def __init__(self, index: Index[Any], query: Callable[[str], Any]) -> None:
        self.index = index
        self._query = query

    def search(self, text: str, k: int) -> list[tuple[int, float]]:
        return self.index.search(self._query(text), k)

    def held(self) -> list[int]:
        return sorted(i for i, _ in self.search("word", 1000))


@contextmanager
def dense(folder: Path) -> Iterator[Subject]:
    embedder = FakeEmbedder(DIMENSIONS)
    yield Subject(DenseIndex(DIMENSIONS), lambda text: embedder.queries([text])[0])


@contextmanager
def lexical(folder: Path) -> Iterator[Subject]:
    index = LexicalIndex(folder / "lexical", readonly=False)
    yield Subject(index, words)
    index.close()


@pytest.fixture(params=[dense, lexical], ids=["dense", "lexical"])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    with request.param(tmp_path) as made:
        yield made


def test_an_empty_index_is_at_generation_zero_and_finds_nothing(subject: Subject) -> None:
    assert subject.index.generation == 0
    assert subject.search("word", 5) == []


def test_catching_up_reaches_the_generation_of_the_changes(subject: Subject) -> None:
    subject.index.catch_up(added(3, entry(1, "a word")))
    assert subject.index.generation == 3
    subject.index.catch_up(Changes(9))
    assert subject.index.generation == 9
    assert subject.held() == [1]


def test_what_was_added_is_found(subject: Subject) -> None:
    subject.index.catch_up(added(1, entry(1, "the dose of aspirin"), entry(2, "labour contract")))
    assert subject.search("aspirin", 1)[0][0] == 1
    assert subject.search("contract", 1)[0][0] == 2


def test_what_was_removed_is_not_found(subject: Subject) -> None:
    subject.index.catch_up(added(1, entry(1, "word one"), entry(2, "word two")))
    subject.index.catch_up(Changes(2, removed=(1,)))
    assert subject.held() == [2]


def test_adding_and_removing_happen_in_one_step(subject: Subject) -> None:
    subject.index.catch_up(added(1, entry(1, "word old")))
    subject.index.catch_up(Changes(2, (entry(2, "word new"),), (1,)))
    assert subject.held() == [2]


def test_fresh_changes_leave_nothing_of_before(subject: Subject) -> None:
    subject.index.catch_up(added(1, entry(1, "word one"), entry(2, "word two")))
    subject.index.catch_up(Changes(5, (entry(2, "word two"), entry(3, "word three")), fresh=True))
    assert subject.held() == [2, 3]
    assert subject.index.generation == 5


def test_removing_what_was_never_held_is_no_error(subject: Subject) -> None:
    subject.index.catch_up(Changes(1, (entry(1, "word"),), (77,)))
    assert subject.held() == [1]


def test_results_come_best_first_and_at_most_k(subject: Subject) -> None:
    texts = ["word", "word word filler", "filler word here too", "word and many more words here"]
    subject.index.catch_up(added(1, *(entry(i, text) for i, text in enumerate(texts))))
    found = subject.search("word", 3)
    scores = [score for _, score in found]
    assert len(found) == 3
    assert scores == sorted(scores, reverse=True)
    assert len(subject.search("word", 99)) == 4
    assert subject.search("word", 0) == subject.search("word", -1) == []


def test_large_ids_survive(subject: Subject) -> None:
    subject.index.catch_up(added(1, entry(2**40, "word")))
    assert subject.held() == [2**40]


@pytest.mark.parametrize("seed", range(5))
def test_any_history_leaves_exactly_the_living(subject: Subject, seed: int) -> None:
    rng = random.Random(seed)
    alive: set[int] = set()
    for generation in range(1, 15):
        removed = {i for i in alive if rng.random() < 0.3}
        fresh = range(generation * 100, generation * 100 + rng.randrange(5))
        subject.index.catch_up(
            Changes(
                generation, tuple(entry(i, f"word w{i}") for i in fresh), tuple(sorted(removed))
            )
        )
        alive = (alive - removed) | set(fresh)
        assert subject.held() == sorted(alive)
