"""The chance of an answer rises with what speaks for one, and small collections count too."""

import pytest

from app.evidence import chance
from kb.records import Chunk, Found, Hit


def found(cosine: float, coverage: float, background: float | None = 0.8) -> Found:
    chunk = Chunk(1, 1, 0, 4, "text", "", None)
    hit = Hit(chunk, "file-1", "a.md", "A", "0" * 64, 1.0, cosine, 1.0, coverage)
    return Found((hit,), 1, (), background)


@pytest.mark.parametrize("background", [0.8, None])
def test_the_chance_rises_with_cosine_and_coverage(background: float | None) -> None:
    assert chance(found(0.9, 0.5, background)) > chance(found(0.8, 0.5, background))
    assert chance(found(0.85, 0.9, background)) > chance(found(0.85, 0.1, background))


def test_a_best_hit_that_stands_out_counts_more_than_one_among_many() -> None:
    assert chance(found(0.85, 0.3, 0.75)) > chance(found(0.85, 0.3, 0.84))


@pytest.mark.parametrize("background", [0.8, None])
def test_clear_cases_are_clear(background: float | None) -> None:
    assert chance(found(0.93, 0.9, background)) > 0.8
    assert chance(found(0.75, 0.0, background)) < 0.1


def test_without_hits_there_is_no_chance() -> None:
    assert chance(Found((), 1)) == 0.0
