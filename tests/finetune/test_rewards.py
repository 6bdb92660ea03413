"""What an answer is worth."""

from finetune.rewards import cited, right
from kb.prompt import Excerpt, messages


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def test_an_answer_is_right_where_the_wanted_words_occur() -> None:
    answers = [said("It is  at NINE."), said("At ten."), said("?")]
    assert right(answers, answer=["at nine", "at nine", None]) == [1.0, 0.0, None]


def test_only_what_was_shown_can_be_cited() -> None:
    shown = messages("When?", [Excerpt(1, "At nine [7]."), Excerpt(2, "At ten.")])
    nothing = messages("When?", [])
    answers = [said("At nine [1]."), said("At nine."), said("At nine [3]."), said("At nine [1].")]
    assert cited([shown, shown, shown, nothing], answers) == [1.0, 0.0, 0.0, None]
