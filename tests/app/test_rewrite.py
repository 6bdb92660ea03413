"""A follow-up is searched for together with what it leans on; other questions stand alone."""

import pytest

from app.rewrite import standalone

BEFORE = ["When does the pharmacy open on weekdays?"]


@pytest.mark.parametrize(
    "question",
    [
        "And on Sundays?",
        "What about holidays?",
        "Who runs it?",
        "那周日呢？",
        "它几点关门？",
        "Why?",
    ],
)
def test_a_question_that_leans_on_the_last_one_is_searched_with_it(question: str) -> None:
    assert standalone(question, BEFORE) == f"{BEFORE[0]}\n{question}"


@pytest.mark.parametrize(
    "question",
    ["How long are X-ray pictures kept in the archive?", "固定资产要报废应当找谁批准？"],
)
def test_a_question_that_stands_alone_is_left_alone(question: str) -> None:
    assert standalone(question, BEFORE) == question


def test_the_first_question_is_never_changed() -> None:
    assert standalone("And on Sundays?", []) == "And on Sundays?"
