"""Two halves become one score: each speaks as loudly as its own scores say."""

import numpy as np
import pytest

from kb.fusion import fuse

RARITY = (4.0, 4.0)


def order(scores: dict[int, float]) -> list[int]:
    return sorted(scores, key=lambda i: -scores[i])


def test_the_best_of_both_halves_wins() -> None:
    scores = fuse({1: 0.9, 2: 0.8, 3: 0.7}, {1: 12.0, 3: 6.0}, RARITY, 7.0)
    assert order(scores)[0] == 1


def test_without_a_common_word_the_cosines_decide_alone() -> None:
    cosines = {1: 0.8, 2: 0.9, 3: 0.7}
    assert fuse(cosines, {}, RARITY, 7.0) == pytest.approx({1: -0.7, 2: 0.0, 3: -1.4})


def test_one_common_word_of_many_weighs_less_than_the_only_one() -> None:
    """The same word found, as all of a question and beside many that no passage holds."""
    cosines, lexical = {1: 0.90, 2: 0.86}, {2: 4.0}
    assert order(fuse(cosines, lexical, [4.0], 7.0)) == [2, 1]
    assert order(fuse(cosines, lexical, [4.0] * 20, 7.0)) == [1, 2]


def test_where_all_that_was_asked_is_found_the_words_decide() -> None:
    """The right article of the right law, though another one is nearer to the question."""
    ideal = 2.2 * sum(RARITY)
    scores = fuse({1: 0.90, 2: 0.80}, {1: 0.5 * ideal, 2: 0.9 * ideal}, RARITY, 7.0)
    assert order(scores) == [2, 1]


def test_fusion_of_nothing_is_nothing() -> None:
    assert fuse({}, {}, (), 7.0) == fuse({}, {}, RARITY, 7.0) == {}


def test_fusion_does_not_depend_on_the_scale_of_bm25() -> None:
    cosines, lexical = {1: 0.9, 2: 0.85, 3: 0.8}, {2: 4.0, 3: 8.0}
    larger = {i: 100 * s for i, s in lexical.items()}
    assert fuse(cosines, larger, [100 * r for r in RARITY], 7.0) == pytest.approx(
        fuse(cosines, lexical, RARITY, 7.0)
    )


def test_a_better_half_never_lowers_a_score() -> None:
    rng = np.random.default_rng(5)
    for _ in range(100):
        cosines = {i: float(c) for i, c in enumerate(rng.uniform(0.5, 0.8, 6))} | {9: 0.9}
        lexical = {i: float(s) for i, s in enumerate(rng.uniform(0, 5, 4))} | {9: 9.0}
        before = fuse(cosines, lexical, RARITY, 7.0)
        assert fuse(cosines | {2: cosines[2] + 0.05}, lexical, RARITY, 7.0)[2] > before[2]
        assert fuse(cosines, lexical | {2: lexical[2] + 1}, RARITY, 7.0)[2] > before[2]
