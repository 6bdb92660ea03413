"""The line of what is set aside is taken off, however it streams, and nothing else is."""

import pytest

from app.aside import AsideWatch
from kb import prompt
from kb.prompt import REFUSAL

SIZES = (1, 2, 3, 5, 8, 1000)
ANSWERS = ("It opens at 8:15. [2]", REFUSAL["en"], "", "Set aside: [1]\nagain", "[3] says so.")
OTHERS = (
    "It opens at 8:15.\nSet aside: [1] [2]\nand closes at 18:40.",
    "Set aside the sample for two hours [1].\nThen read it.",
    "Set aside: the sample [1]\nfor two hours.",
    "Set aside:\n[1] is a list.",
    "Set aside: [1] and [2]\nare not used.",
    "Set aside: [1234]\nis no number of a passage.",
    "Set aside: none of the references.",
    "Set aside: none [1]\nis used.",
    "Set aside: no",
    "Set aside: [",
    "set aside: [1]\nis another's manner.",
    "Set",
    "  \n",
    "不采用这些参考。",
    "不采用：无关的参考。",
    "不采用：无法回答。",
)


def hear(said: str, size: int) -> tuple[str, list[int]]:
    watch = AsideWatch()
    pieces = [watch.feed(said[at : at + size]) for at in range(0, len(said), size)]
    return "".join([*pieces, watch.rest()]), watch.numbers


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("aside", [[1, 3, 12], []])
@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("size", SIZES)
def test_the_line_is_taken_off_and_read_whatever_way_it_is_cut(
    answer: str, aside: list[int], language: str, size: int
) -> None:
    line = prompt.set_aside(aside, language)
    assert hear(line + answer, size) == (answer, aside)
    assert hear(f" {line}\n{answer}", size) == (answer, aside)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("size", SIZES)
def test_a_line_without_its_end_is_taken_off_too(language: str, size: int) -> None:
    # Out of tokens in the middle of a number, as soon as there was one.
    cut = prompt.set_aside([1, 3, 12], language).partition("2]")[0]
    assert hear(cut, size) == ("", [1, 3])
    assert hear(prompt.set_aside([], language).rstrip(), size) == ("", [])


@pytest.mark.parametrize("said", [*OTHERS, *ANSWERS[:3]])
@pytest.mark.parametrize("size", SIZES)
def test_what_only_resembles_it_stays(said: str, size: int) -> None:
    assert hear(said, size) == (said, [])


def test_another_answer_is_held_back_for_no_longer_than_it_may_become_the_line() -> None:
    watch = AsideWatch()
    assert watch.feed("Set") == "" and watch.feed(" up") == "Set up"
    assert watch.feed(" Set") == " Set"
