"""Lines of a PDF page become paragraphs and headings."""

from ingest.reflow import join_pages

ENGLISH = """Leave and Time\r
Every employee has a right to twenty days of paid leave in a calendar\r
year. Leave that was not taken by the end of March is lost, unless ill\x02\r
ness kept the employee from taking it.\r
1. The first rule is short.\r
2. So is the second."""


def test_wrapped_lines_are_joined_and_lists_are_not() -> None:
    text, starts = join_pages([ENGLISH], {"Leave and Time": 2})
    assert starts == (0,)
    assert text.split("\n") == [
        "## Leave and Time",
        "Every employee has a right to twenty days of paid leave in a calendar year. Leave that was"
        " not taken by the end of March is lost, unless illness kept the employee from taking it.",
        "1. The first rule is short.",
        "2. So is the second.",
    ]


def test_chinese_words_are_joined_without_a_space() -> None:
    page = (
        "第二条 本办法所称特殊药品，是指两种药。东街药房主任负责特\r\n殊药品的管理。\r\n第三条 略。"
    )
    text, _ = join_pages([page], {})
    assert "负责特殊药品的管理。\n第三条" in text


def test_half_a_sentence_in_large_letters_is_no_heading() -> None:
    page = "\r\n".join(
        (
            "The board may decide that a member who has not attended",
            "The Annual Meeting of All Members",
            "is to be heard.",
        )
    )
    text, _ = join_pages([page], {"The Annual Meeting of All Members": 1})
    assert "#" not in text


def test_each_page_starts_where_its_text_starts() -> None:
    text, starts = join_pages(["", "alpha", " \r\n ", "beta", ""], {})
    assert text == "alpha\n\nbeta"
    assert starts == (0, 0, 5, 7, 11)
