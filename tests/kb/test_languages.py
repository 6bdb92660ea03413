"""Questions find what answers them in either language, whatever stands beside it."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from kb.dense import DenseIndex, as_codes
from kb.embedding import Embedder, FakeEmbedder, open_embedder
from kb.languages import Balance, Comparison, Languages, Way, measured
from kb.records import Changes
from kb.settings import KbSettings
from tests.kb.bases import unit

DIMENSIONS = 48
Vectors = npt.NDArray[np.float32]


class TwoTongues:
    """An embedder as real ones are: a text's vector is what it says, and much of its language.

    A text is `en 17` or `zh 17`: the language and what it says. `apart` is how much of a vector is
    its language's.
    """

    def __init__(self, apart: float = 3.0) -> None:
        rng = np.random.default_rng(7)
        self._meanings = unit(rng, 400, DIMENSIONS)
        self._tongues = apart * unit(rng, 2, DIMENSIONS)

    def vector(self, meaning: int, *, chinese: bool) -> Vectors:
        raw = self._meanings[meaning] + self._tongues[int(chinese)]
        return np.asarray(raw / np.linalg.norm(raw), np.float32)

    def queries(self, texts: list[str]) -> Vectors:
        # Those that are measured: the first half English, the second the same in Chinese.
        half = len(texts) // 2
        return np.stack([self.vector(300 + i % half, chinese=i >= half) for i in range(len(texts))])

    passages = queries


@pytest.fixture
def tongues() -> TwoTongues:
    return TwoTongues()


@pytest.fixture
def languages(tongues: TwoTongues) -> Languages:
    found = measured(tongues)
    assert found is not None
    return found


def filled(tongues: TwoTongues, languages: Languages | None, sides: list[bool]) -> DenseIndex:
    """A passage of each meaning, in the language that `sides` says; its id is 1000 + meaning."""
    index = DenseIndex(DIMENSIONS, languages=languages)
    vectors = [tongues.vector(i, chinese=side) for i, side in enumerate(sides)]
    codes = as_codes([v.astype(np.float16).tobytes() for v in vectors])
    index.add(np.arange(1000, 1000 + len(sides)), codes)
    index.filled_to(1)
    return index


def best(index: DenseIndex, question: Vectors, *, chinese: bool) -> int:
    assert index.balance is not None
    ways = index.balance.ways(question, chinese)
    scores = Comparison(index, ways, index.balance.languages).nearest(20)
    return max(scores, key=lambda i: scores[i])


def test_what_stands_in_the_other_language_is_found_beside_many_of_the_questions_own(
    tongues: TwoTongues, languages: Languages
) -> None:
    index = filled(tongues, languages, [i % 2 == 1 for i in range(200)])
    for chinese in (False, True):
        asked = [tongues.vector(i, chinese=chinese) for i in range(100)]
        found = [best(index, question, chinese=chinese) - 1000 for question in asked]
        assert found == list(range(100))
        # As they come, a question's own language stands first.
        bare = [index.search(question, 1)[0][0] - 1000 for question in asked]
        assert sum(i == b for i, b in enumerate(bare)) <= 60


def test_a_single_passage_in_the_other_language_is_found(
    tongues: TwoTongues, languages: Languages
) -> None:
    index = filled(tongues, languages, [i == 42 for i in range(200)])
    assert best(index, tongues.vector(42, chinese=False), chinese=False) == 1042
    assert best(index, tongues.vector(42, chinese=True), chinese=True) == 1042


def test_in_one_language_scores_are_cosines(tongues: TwoTongues, languages: Languages) -> None:
    index = filled(tongues, languages, [False] * 50)
    question = tongues.vector(3, chinese=False)
    assert index.balance is not None
    (way,) = index.balance.ways(question, chinese=False)
    assert (way.scale, way.shift) == (1.0, 0.0) and (way.vector == question).all()


def test_scores_of_the_questions_own_language_stay_cosines_beside_the_other(
    tongues: TwoTongues, languages: Languages
) -> None:
    index = filled(tongues, languages, [i % 2 == 1 for i in range(50)])
    question = tongues.vector(4, chinese=False)
    assert index.balance is not None
    ways = index.balance.ways(question, chinese=False)
    comparison = Comparison(index, ways, languages)
    own = [1000 + i for i in range(0, 50, 2)]
    scores = comparison.of(range(1000, 1050))
    assert {i: scores[i] for i in own} == pytest.approx(index.cosines(question, own))
    assert comparison.apart == set(range(1001, 1050, 2)) and len(scores) == 50


def test_what_a_language_adds_does_not_depend_on_what_was_removed(
    tongues: TwoTongues, languages: Languages
) -> None:
    """Removed passages leave the balance as if they had never been."""
    sides = [i % 2 == 1 for i in range(100)]
    index = filled(tongues, languages, sides)
    index.catch_up(Changes(2, removed=tuple(range(1050, 1100))))
    small = filled(tongues, languages, sides[:50])
    question = tongues.vector(4, chinese=True)
    assert index.balance is not None and small.balance is not None
    for one, other in zip(
        index.balance.ways(question, chinese=True),
        small.balance.ways(question, chinese=True),
        strict=True,
    ):
        assert one.scale == pytest.approx(other.scale, abs=1e-4)
        assert one.shift == pytest.approx(other.shift, abs=1e-4)
    index.catch_up(Changes(3, removed=tuple(range(1001, 1050, 2))))
    assert [way.chinese for way in index.balance.ways(question, chinese=True)] == [False]


def test_an_embedder_that_does_not_tell_languages_apart_is_left_alone() -> None:
    assert measured(TwoTongues(apart=0.0)) is None
    assert FakeEmbedder().languages is None


def test_an_empty_knowledge_base_is_asked_as_it_comes(languages: Languages) -> None:
    question = np.ones(DIMENSIONS, np.float32)
    assert Balance(languages).ways(question, chinese=True) == [Way(True, question)]


@pytest.fixture(scope="module")
def embedder(models_home: Path) -> Embedder:
    return open_embedder(KbSettings(), models_home)


@pytest.mark.real
def test_the_bundled_embedder_tells_the_languages_of_passages_apart(embedder: Embedder) -> None:
    assert embedder.languages is not None
    texts = [
        "The counter opens at eight.",
        "柜台八点开门。",
        "Keep records for ten years.",
        "记录保存十年。",
    ]
    assert embedder.languages.sides(embedder.passages(texts)).tolist() == [False, True] * 2
