"""What an answer is worth."""

from finetune.rewards import cited, right
from kb.prompt import REFUSAL, Excerpt, messages


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def test_an_answer_is_right_where_the_wanted_words_occur() -> None:
    answers = [said("It is  at NINE."), said("At ten."), said("?")]
    assert right(answers, answer=["at nine", "at nine", None]) == [1.0, 0.0, None]


def test_only_what_was_shown_can_be_cited() -> None:
    shown = messages("When?", [Excerpt(1, "At nine [7]."), Excerpt(2, "At ten.")])
    nothing = messages("When?", [])
    answers = [said("At nine [1]."), said("At nine."), said("At nine [3]."), said("At nine [1].")]
    asked = [shown, shown, shown, nothing]
    assert cited(asked, answers, answer=["at nine"] * 4) == [1.0, 0.0, 0.0, None]


def test_a_refusal_is_right_where_it_was_wanted_and_needs_no_citation() -> None:
    shown = messages("When?", [Excerpt(1, "At nine.")])
    answers, wanted = [said(REFUSAL["en"]), said("At nine. [1]")], [REFUSAL["en"]] * 2
    assert right(answers, answer=wanted) == [1.0, 0.0]
    assert cited([shown, shown], answers, answer=wanted) == [None, None]
