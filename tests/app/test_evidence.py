"""The chance of an answer rises with what speaks for one, and small collections count too."""

import pytest

from app.evidence import BELIEVED_BELOW, chance, refusal_stands, strongest
from kb.records import Chunk, Found, Hit

ENGLISH, CHINESE = "How much aspirin does a child take?", "儿童吃多少阿司匹林？"


def found(
    cosine: float, coverage: float, background: float | None = 0.8, text: str = "text"
) -> Found:
    chunk = Chunk(1, 1, 0, len(text), text, "", None)
    hit = Hit(chunk, "file-1", "a.md", "A", "0" * 64, 1.0, cosine, 1.0, coverage)
    return Found((hit,), 1, (), background)


@pytest.mark.parametrize("background", [0.8, None])
def test_the_chance_rises_with_cosine_and_coverage(background: float | None) -> None:
    assert chance(ENGLISH, found(0.9, 0.5, background)) > chance(
        ENGLISH, found(0.8, 0.5, background)
    )
    assert chance(ENGLISH, found(0.85, 0.9, background)) > chance(
        ENGLISH, found(0.85, 0.1, background)
    )


def test_a_best_hit_that_stands_out_counts_more_than_one_among_many() -> None:
    assert chance(ENGLISH, found(0.85, 0.3, 0.75)) > chance(ENGLISH, found(0.85, 0.3, 0.84))


@pytest.mark.parametrize("background", [0.8, None])
def test_clear_cases_are_clear(background: float | None) -> None:
    assert chance(ENGLISH, found(0.93, 0.9, background)) > 0.8
    assert chance(ENGLISH, found(0.75, 0.0, background)) < 0.1


def test_without_hits_there_is_no_chance() -> None:
    assert chance(ENGLISH, Found((), 1)) == 0.0


@pytest.mark.parametrize(
    ("question", "text"), [(ENGLISH, "儿童一次半片。"), (CHINESE, "Half a tablet.")]
)
def test_across_languages_an_answer_needs_no_common_word_and_has_to_stand_out(
    question: str, text: str
) -> None:
    assert chance(question, found(0.88, 0.0, 0.79, text)) > 0.15
    assert chance(question, found(0.82, 0.0, 0.79, text)) < 0.15


def test_a_hit_in_the_questions_own_language_counts_though_another_stands_before_it() -> None:
    (other,) = found(0.85, 0.0, 0.80, "儿童一次半片。").hits
    (own,) = found(0.85, 0.8, 0.80, "A child takes half a tablet.").hits
    both = Found((other, own), 1, (), 0.80)
    assert strongest(ENGLISH, both) == (chance(ENGLISH, Found((own,), 1, (), 0.80)), own)
    assert strongest(ENGLISH, Found((other,), 1, (), 0.80))[1] is other


def test_each_language_stands_out_from_a_background_of_its_own() -> None:
    (other,) = found(0.88, 0.0, text="儿童一次半片。").hits
    (own,) = found(0.88, 0.5).hits
    for hit in (other, own):
        near, far = Found((hit,), 1, (), 0.80, 0.86), Found((hit,), 1, (), 0.86, 0.80)
        assert (chance(ENGLISH, near) > chance(ENGLISH, far)) is (hit is own)


CHANCES = [n / 20 for n in range(1, 20)]


@pytest.mark.parametrize("likely", CHANCES)
def test_a_refusal_stands_from_some_sureness_of_the_model_on(likely: float) -> None:
    stands = [refusal_stands(certain, likely) for certain in (0.0, *CHANCES, 0.99, 0.999, 1.0)]
    assert not stands[0] and stands[-1] and stands == sorted(stands)


def test_the_likelier_an_answer_the_surer_a_refusal_must_be() -> None:
    needed = [
        next(c for c in (n / 1000 for n in range(1001)) if refusal_stands(c, e)) for e in CHANCES
    ]
    assert needed == sorted(needed) and needed[0] < 0.5 < 0.99 < needed[-1]


def test_where_it_is_not_known_how_sure_the_model_is_the_chance_alone_decides() -> None:
    assert refusal_stands(None, BELIEVED_BELOW - 0.01) and not refusal_stands(None, BELIEVED_BELOW)
