"""Chunks are slices that hold every character once, within a size, and never cross a heading."""

import random
import re
from itertools import pairwise

import pytest

from kb.chunking import chunk, first_heading
from kb.words import estimate_tokens
from tests.kb.bases import random_text

HEADING = re.compile(r"^#{1,6}[ \t].*$", re.MULTILINE)
SEEDS = range(40)


@pytest.fixture(params=SEEDS)
def text(request: pytest.FixtureRequest) -> str:
    return random_text(random.Random(request.param))


SIZES = (32, 60, 160)


def test_a_piece_is_a_slice_of_its_text(text: str) -> None:
    for size in SIZES:
        assert all(p.text == text[p.start : p.end] and p.text for p in chunk(text, size))


def test_pieces_are_in_order_and_do_not_overlap(text: str) -> None:
    for size in SIZES:
        pieces = chunk(text, size)
        assert all(a.end <= b.start for a, b in pairwise(pieces))


def test_every_character_outside_headings_is_in_exactly_one_piece(text: str) -> None:
    headings = {i for m in HEADING.finditer(text) for i in range(*m.span())}
    wanted = [i for i, c in enumerate(text) if not c.isspace() and i not in headings]
    for size in SIZES:
        pieces = chunk(text, size)
        got = [i for p in pieces for i in range(p.start, p.end) if not text[i].isspace()]
        assert [i for i in got if i not in headings] == wanted
        assert len(set(got)) == len(got)


def test_every_word_of_a_heading_is_in_a_piece_or_above_one(text: str) -> None:
    said = {
        word for p in chunk(text, 160) for word in f"{p.text} {p.heading}".replace("*", "").split()
    }
    for match in HEADING.finditer(text):
        assert set(match.group().replace("*", "").strip("# \t").split()) <= said


def test_no_piece_is_larger_than_the_size(text: str) -> None:
    for size in SIZES:
        assert all(estimate_tokens(p.text) <= size for p in chunk(text, size))


def test_no_piece_crosses_a_heading(text: str) -> None:
    headings = [m.span() for m in HEADING.finditer(text)]
    for size in SIZES:
        for piece in chunk(text, size):
            touched = [(a, b) for a, b in headings if a < piece.end and piece.start < b]
            assert all(a <= piece.start and piece.end <= b for a, b in touched)


def test_many_blank_lines_count_toward_the_size() -> None:
    text = ("ab" + "\n" * 60) * 50
    assert max(estimate_tokens(p.text) for p in chunk(text, 32)) <= 32


def test_a_piece_carries_the_path_of_the_headings_above_it() -> None:
    text = "zero\n# A\none\n## *B*\ntwo\n### C ###\nthree\n## D\nfour\n# E\nfive"
    expected = [
        ("zero", ""),
        ("one", "A"),
        ("two", "A > B"),
        ("three", "A > B > C"),
        ("four", "A > D"),
        ("five", "E"),
    ]
    assert [(p.text, p.heading) for p in chunk(text, 160)] == expected


def test_a_heading_with_nothing_below_it_is_a_piece() -> None:
    text = "# A\n\n## B\n## C\nbody\n# *D*\n# E\n## F"
    got = [(p.text, p.heading) for p in chunk(text, 160)]
    assert got == [("B", "A"), ("body", "A > C"), ("*D*", ""), ("F", "E")]
    assert [p.heading for p in chunk("# A\n## B\nbody", 160)] == ["A > B"]
    assert chunk("# **\n\n## ##\n", 160) == []


@pytest.mark.parametrize("text", ["", " ", "\n\n\t\n", "\u3000"])
def test_a_text_without_words_makes_no_piece(text: str) -> None:
    assert chunk(text, 160) == []


@pytest.mark.parametrize("line", ["#no space", "####### seven marks", "a # b", " # indented"])
def test_what_only_looks_like_a_heading_is_text(line: str) -> None:
    assert [p.text for p in chunk(line, 160)] == [line.strip()]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("第七条 " + "劳动者依法享有权利。" * 8, "第八条 " + "用人单位应当支付报酬。" * 10),
        ("Article 7 " + "The worker is free. " * 20, "Article 8 " + "The employer pays. " * 20),
        ("§ 7 " + "Der Arbeitnehmer ist frei. " * 20, "§ 8 " + "Der Arbeitgeber zahlt. " * 20),
    ],
)
def test_an_article_starts_a_piece(first: str, second: str) -> None:
    text = f"{first.strip()}\n{second.strip()}"
    starts = {p.start for p in chunk(text, 160)}
    assert text.index(second[:5]) in starts


def test_short_articles_share_a_piece() -> None:
    text = "第一条 甲。\n第二条 乙。"
    assert [p.text for p in chunk(text, 160)] == [text]


def test_a_sentence_is_cut_only_when_it_alone_is_too_large() -> None:
    sentence = "The quick brown fox jumps over the lazy dog again and again."
    ends = {text.rstrip()[-1] for text in (p.text for p in chunk(f"{sentence} " * 60, 60))}
    assert ends == {"."}


def test_a_long_sentence_is_cut_between_words() -> None:
    words = [f"word{i}" for i in range(400)]
    pieces = chunk(" ".join(words), 60)
    assert len(pieces) > 3
    assert [w for p in pieces for w in p.text.split()] == words


def test_the_first_heading_comes_without_markup() -> None:
    assert first_heading("text\n## The *big* `one` ##\n# Later") == "The big one"
    assert first_heading("no heading") == ""


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "unit", ["x", "字", " ", "#", "# ", ".", "\n", "，", "a b", "# \n", "第1条"]
)
def test_a_long_run_of_one_thing_is_cut_in_bounded_time(unit: str) -> None:
    for text in (unit * (300_000 // len(unit)), "# a" + unit * (300_000 // len(unit)) + "b"):
        assert all(estimate_tokens(p.text) <= 160 for p in chunk(text, 160))
