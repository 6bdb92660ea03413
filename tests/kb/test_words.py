"""Words, sentences and measures: the same for documents and questions."""

import random
import sys
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest

from kb.words import (
    content_words,
    estimate_tokens,
    is_chinese,
    sentences,
    support,
    words,
)
from tests.kb.bases import random_text

if TYPE_CHECKING:
    from _typeshed import TraceFunction


def said(text: str) -> list[str]:
    return [text[a:b] for a, b in sentences(text)]


def test_chinese_is_segmented_and_compounds_come_with_their_parts() -> None:
    found = words("中华人民共和国劳动合同法")
    assert "中华人民共和国" in found
    assert {"人民", "共和国", "劳动", "合同"} <= set(found)


def test_a_query_for_a_part_meets_the_whole() -> None:
    assert set(words("合同")) <= set(words("劳动合同"))


def test_english_is_stemmed_and_lowered() -> None:
    assert words("Employed EMPLOYS employing employ") == ["employ"] * 4


@pytest.mark.parametrize("number", ["2.5", "1,000", "1,000.50", "0.005"])
def test_a_decimal_stays_one_word(number: str) -> None:
    assert words(f"takes {number} mg.") == ["take", number, "mg"]


def test_a_number_joined_to_a_word_by_a_dot_is_a_word_of_its_own() -> None:
    assert words("No.5") == words("No. 5") == ["no", "5"]


def test_a_version_stays_one_word() -> None:
    assert "v2.5" in words("release v2.5 is out")


def test_full_width_letters_and_digits_are_normalised() -> None:
    assert words("ＡＢＣ １２．５") == ["abc", "12.5"]


def test_chinese_and_latin_side_by_side_are_kept_apart() -> None:
    assert words("服用aspirin片") == [*words("服用"), *words("aspirin"), *words("片")]


def test_content_words_are_unique_in_order_and_without_stopwords() -> None:
    assert content_words("What is the dose of the drug, and which dose?") == ["dose", "drug"]
    assert content_words("试用期 是 多久") == list(dict.fromkeys(words("试用期")))


def test_sentences_are_trimmed_and_cover_all_text() -> None:
    rng = random.Random(7)
    for _ in range(300):
        text = random_text(rng)
        at = 0
        for start, end in sentences(text):
            assert at <= start < end
            assert not text[at:start].strip(), "text between two sentences"
            assert text[start:end] == text[start:end].strip()
            at = end
        assert not text[at:].strip()


@pytest.mark.parametrize(
    "text",
    [
        "Take it at 8 a.m. on Monday.",
        "Ask Dr. Smith about it.",
        "Some drugs, e.g. Aspirin, are mild.",
        "See Art. 5 and Sec. 7 of it.",
        "Written by J. Smith alone.",
        "About 2.5 mg of it.",
        "Smith vs. Jones is settled.",
    ],
)
def test_an_abbreviation_ends_no_sentence(text: str) -> None:
    assert said(text) == [text]


def test_an_abbreviation_is_a_word_not_the_end_of_one() -> None:
    assert said("We saw a restart. Then it ran.") == ["We saw a restart.", "Then it ran."]


def test_full_stops_of_both_languages_and_lines_end_sentences() -> None:
    text = "One is here. Two! “Three?” Four\n五个。「六。」七；八"
    expected = ["One is here.", "Two!", "“Three?”", "Four", "五个。", "「六。」", "七；", "八"]
    assert said(text) == expected


def test_no_text_has_no_sentence() -> None:
    assert sentences("") == sentences(" \n\t ") == []


def lines_run(work: Callable[[], object]) -> int:
    """Work measured without a clock: lines of Python that run."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> "TraceFunction":
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("unit", ["A word. ", "劳动合同。", "Dr. Who\n"])
def test_twice_the_text_is_twice_the_work(unit: str) -> None:
    once = lines_run(lambda: sentences(unit * 2000))
    twice = lines_run(lambda: sentences(unit * 4000))
    assert twice < 2.2 * once


@pytest.mark.timeout(20)
@pytest.mark.parametrize("unit", [".", "x", "字", "。", '."', "1,", " ", "!?", "a. "])
def test_a_megabyte_of_one_thing_is_cut_in_bounded_time(unit: str) -> None:
    text = unit * (1_000_000 // len(unit)) + "x"
    sentences(text)
    words(text)


def test_support_is_the_share_of_the_claim_that_is_held() -> None:
    assert support(["a", "b"], ["b", "c"]) == 0.5
    assert support(["a"], ["a"]) == 1.0
    assert support([], ["a"]) == support(["a"], []) == 0.0


def test_a_missing_number_weighs_three_words() -> None:
    assert support(["dose", "30"], ["dose"]) == pytest.approx(1 / 4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("劳动合同法", True),
        ("阿司匹林 aspirin 的用法用量", True),
        ("How is 药 used in a sentence?", False),
        ("English only", False),
        ("", False),
        ("123 !?", False),
    ],
)
def test_a_mixed_text_belongs_to_the_language_of_most_letters(text: str, expected: bool) -> None:
    assert is_chinese(text) is expected


def test_estimated_tokens_count_four_latin_letters_or_one_chinese() -> None:
    assert estimate_tokens("") == 0
    assert estimate_tokens("abcde") == 2
    assert estimate_tokens("劳动ab") == 3
