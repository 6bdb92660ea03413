"""Two halves become one score: each speaks as loudly as its own scores say."""

import numpy as np
import pytest

from kb.fusion import fuse

RARITY = {"okapi": 4.0, "bongo": 4.0}
IDEAL = 2.2 * sum(RARITY.values())


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
    assert order(fuse(cosines, lexical, {"okapi": 4.0}, 7.0)) == [2, 1]
    assert order(fuse(cosines, lexical, dict.fromkeys("abcdefghijklmnopqrst", 4.0), 7.0)) == [1, 2]


def test_where_one_passage_holds_what_was_asked_and_no_other_does_the_words_decide() -> None:
    """The right article of the right law, though another one is nearer to the question."""
    scores = fuse({1: 0.90, 2: 0.80}, {2: 0.9 * IDEAL}, RARITY, 7.0)
    assert order(scores) == [2, 1]


def test_words_that_five_passages_hold_alike_leave_the_choice_to_the_cosines() -> None:
    """All are about the disease that was asked about; one tells its treatment."""
    cosines = {i: 0.85 + 0.01 * i for i in range(6)}
    lexical = {i: (0.9 - 0.02 * i) * IDEAL for i in range(6)}
    assert order(fuse(cosines, lexical, RARITY, 7.0))[0] == 5


def test_the_number_of_an_article_is_believed_though_other_articles_hold_the_same_words() -> None:
    cosines = {i: 0.85 + 0.01 * i for i in range(6)}
    lexical = {i: (0.9 - 0.05 * i) * IDEAL for i in range(6)}
    named = {"law": 4.0, "§33": 4.0}
    assert order(fuse(cosines, lexical, named, 7.0))[0] == 0
    assert order(fuse(cosines, lexical, RARITY, 7.0))[0] != 0


def test_fusion_of_nothing_is_nothing() -> None:
    assert fuse({}, {}, {}, 7.0) == fuse({}, {}, RARITY, 7.0) == {}


def test_fusion_does_not_depend_on_the_scale_of_bm25() -> None:
    cosines, lexical = {1: 0.9, 2: 0.85, 3: 0.8}, {2: 4.0, 3: 8.0}
    larger = {i: 100 * s for i, s in lexical.items()}
    assert fuse(
        cosines, larger, {word: 100 * r for word, r in RARITY.items()}, 7.0
    ) == pytest.approx(fuse(cosines, lexical, RARITY, 7.0))


def test_a_better_half_never_lowers_a_score() -> None:
    rng = np.random.default_rng(5)
    for _ in range(100):
        cosines = {i: float(c) for i, c in enumerate(rng.uniform(0.5, 0.8, 6))} | {9: 0.9}
        # A passage below the fifth, which says how far the words are believed.
        lexical = {i: float(s) for i, s in enumerate(rng.uniform(0, 5, 4))}
        lexical |= {i: i for i in range(7, 12)}
        before = fuse(cosines, lexical, RARITY, 7.0)
        assert fuse(cosines | {2: cosines[2] + 0.05}, lexical, RARITY, 7.0)[2] > before[2]
        assert fuse(cosines, lexical | {2: lexical[2] + 1}, RARITY, 7.0)[2] > before[2]
