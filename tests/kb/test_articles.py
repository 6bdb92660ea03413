"""The number of an article is one word, however it is written."""

import pytest

from kb.articles import marked, number
from kb.words import words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("第三十三条", "§33"),
        ("第33条", "§33"),
        ("第 33 条", "§33"),
        ("第３３条", "§33"),
        ("第一千二百三十四条", "§1234"),
        ("第一百二十条之一", "§120-1"),
        ("Article 33", "§33"),
        ("ART. 33", "§33"),
        ("Sections 33", "§33"),
        ("Section 4.2", "§4.2"),
        ("Sec. 12a", "§12a"),
        ("§ 33", "§33"),
        ("§§33", "§33"),
    ],
)
def test_every_way_to_write_an_article_gives_the_same_word(text: str, expected: str) -> None:
    assert [word for word in words(f"See {text}, of it.") if word.startswith("§")] == [expected]


def test_a_chinese_article_leaves_no_pieces_of_its_number() -> None:
    assert words("劳动法第三十三条规定") == [*words("劳动法"), "§33", *words("规定")]


def test_an_english_article_keeps_its_words() -> None:
    assert words("Article 33 applies") == ["articl", "33", "§33", "appli"]


@pytest.mark.parametrize(
    "text", ["part 33", "smart 5", "article", "第三章", "条第三", "33", "art5"]
)
def test_what_is_no_article_is_left_alone(text: str) -> None:
    assert marked(text) == text


@pytest.mark.parametrize(
    ("numeral", "value"),
    [
        ("三", 3),
        ("十", 10),
        ("十二", 12),
        ("二十", 20),
        ("一百零五", 105),
        ("两百", 200),
        ("一千零一十", 1010),
        ("二〇二三", 2023),
        ("零", 0),
        ("42", 42),
    ],
)
def test_a_numeral_has_its_value(numeral: str, value: int) -> None:
    assert number(numeral) == value
