"""The judge of answers: right, refused and cited are told from the words alone."""

import pytest

from kb.judging import holds, judge, markers, normalise, refused, spoken


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("It makes up over half of them.", "over half"),
        ("An economist [1].", "Economist"),
        ("He was the Duke.", "a duke"),
        ("In all 1,200 people.", "1200"),
        ("About 2.5 mg", "2.5 mg"),
        ("Between 1960-1970.", "1960"),
        ("他于1998年出生。", "1998"),
        ("答案是“北京”。", "北京"),
        ("It was in Paris[2].", "paris"),
        ("１９９８", "1998"),
    ],
)
def test_an_answer_holds_what_it_says(text: str, answer: str) -> None:
    assert holds(text, ["something else", answer])


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("In 2010.", "10"),
        ("The dukes came.", "duke"),
        ("See [3].", "3"),
        ("25 mg", "2.5 mg"),
        ("Anything", "!"),
    ],
)
def test_a_part_of_a_word_or_a_marker_is_no_answer(text: str, answer: str) -> None:
    assert not holds(text, [answer])


@pytest.mark.parametrize(
    "text",
    [
        "The knowledge base holds no answer to this question.",
        "The references do not mention the price.",
        "The provided text doesn't say who it was.",
        "This is not mentioned in the given references.",
        "I cannot find that.",
        "There is no information about it.",
        "知识库中没有能够回答这个问题的内容。",
        "文中未提及价格。",
        "  ",
    ],
)
def test_a_refusal_is_told(text: str) -> None:
    assert refused(text)


@pytest.mark.parametrize(
    "text",
    [
        "It is 24 mg [1].",
        "He did not like the war.",
        "24 mg a day [1]. The references do not say more.",
        "No, the law does not allow it [2].",
        "不，他没有参加战争。",
    ],
)
def test_an_answer_with_a_no_in_it_is_no_refusal(text: str) -> None:
    assert not refused(text)


def test_citations_count_once_and_only_where_there_is_a_passage() -> None:
    judged = judge("It is 24 mg [2][2], or [1, 9].", ["24 mg"], {2}, 5)
    assert (judged.correct, judged.cited, judged.cited_gold) == (True, True, True)
    assert (judged.citations, judged.gold_citations) == (2, 1)
    assert not judge("It is [7].", ["it"], {1}, 5).cited


def test_a_refusal_is_not_right_even_where_it_names_the_answer() -> None:
    judged = judge("The references do not mention Paris.", ["Paris"], {1}, 1)
    assert judged.refused and not judged.correct and not judged.answered


def test_what_is_set_aside_is_not_cited() -> None:
    text = "Set aside: [1] [3]\nIt is 24 mg [2]."
    assert spoken(text) == "It is 24 mg [2]."
    judged = judge(text, ["24 mg"], {2}, 3)
    assert judged.citations == judged.gold_citations == 1


@pytest.mark.parametrize(
    "text", ["Set aside the sample for 24 mg [2].", "不采用 24 mg 的剂量 [2]。"]
)
def test_an_answer_that_only_sounds_like_setting_aside_is_one(text: str) -> None:
    assert spoken(text) == text
    judged = judge(text, ["24 mg"], {2}, 3)
    assert judged.correct and judged.cited_gold and not judged.refused


def test_markers_and_normalisation() -> None:
    assert markers("[1] a[2, 3] [x] [1234]") == [1, 2, 3]
    assert normalise("The  “Big” Apple, Inc.") == "big apple inc"
