"""What leads an answer, what follows it, and whose refusal is believed."""

import pytest

from app.reply import Reply
from kb.prompt import REFUSAL
from kb.records import Chunk, Citation, Hit

QUESTION = "When does the pharmacy open on weekdays?"
OPENS = "The pharmacy opens at 8:15 on weekdays."
TEXTS = (f"{OPENS} It closes at 18:40.", "| Parcels | arrive on Tuesday |")
ANSWERS = (
    OPENS,
    "The pharmacy closes at 18:40. Parcels arrive on Tuesday [2]. The moon is far [7].",
    "The knowledge",
    REFUSAL["en"],
    f"{REFUSAL['en']} But it opens at 8:15.",
    "",
    f"Set aside: [2]\n{OPENS} It is far. [1]",
    f"Set aside: [1] [2]\n{REFUSAL['en']}",
)


def hit(number: int, text: str) -> Hit:
    chunk = Chunk(number, number, 100, 100 + len(text), text, "", None)
    return Hit(chunk, f"file-{number}", f"{number}.md", "", "0" * 64, 1.0, 0.9, 1.0, 0.5)


HITS = [hit(n, text) for n, text in enumerate(TEXTS, 1)]


def run(
    said: str, *, quotes: int = 1, refuses: bool = True, sure: bool = False, size: int = 1000
) -> tuple[str, list[Citation], bool]:
    reply = Reply(QUESTION, HITS, quotes, refuses=refuses, sure=sure)
    pieces = [*reply.begin()]
    for start in range(0, len(said), size):
        pieces += reply.feed(said[start : start + size])
    pieces += reply.finish()
    text = "".join(piece for piece in pieces if isinstance(piece, str))
    return text, [piece for piece in pieces if isinstance(piece, Citation)], reply.refused


def test_the_passages_own_words_lead_the_answer_of_a_model_that_cannot_refuse() -> None:
    text, citations, refused = run("Good day.", refuses=False)
    assert text == f"“{OPENS}” [1]\n\nGood day."
    assert [c.quote for c in citations] == [OPENS] and not refused


def test_they_follow_the_answer_of_a_model_that_refuses_by_itself() -> None:
    text, citations, refused = run("Good day.")
    assert text == f"Good day.\n\n“{OPENS}” [1]"
    assert [c.quote for c in citations] == [OPENS] and not refused


def test_what_the_model_said_in_their_words_is_not_quoted_again() -> None:
    assert run(OPENS)[0] == f"{OPENS} [1]"


def test_a_refusal_is_told_alone() -> None:
    assert run(f"{REFUSAL['en']} \n") == (REFUSAL["en"], [], True)


def test_where_the_retriever_is_sure_the_passages_speak_instead_of_a_refusal() -> None:
    text, citations, refused = run(REFUSAL["en"], sure=True)
    assert text.startswith(f"“{OPENS}” [1]") and REFUSAL["en"] not in text
    assert citations and not refused


def test_after_quotes_a_refusal_is_only_text() -> None:
    text, _, refused = run(REFUSAL["en"], refuses=False)
    assert text.endswith(REFUSAL["en"]) and not refused


@pytest.mark.parametrize("sure", [True, False])
@pytest.mark.parametrize("refuses", [True, False])
@pytest.mark.parametrize("said", ANSWERS)
def test_what_is_set_aside_first_changes_nothing_of_the_answer(
    said: str, refuses: bool, sure: bool
) -> None:
    bare = said.rpartition("Set aside: [2]\n")[2].removeprefix("Set aside: [1] [2]\n")
    led = f"Set aside: [1] [2]\n{bare}"
    for size in (1, 4, 1000):
        assert run(led, refuses=refuses, sure=sure, size=size) == run(
            bare, refuses=refuses, sure=sure
        )


@pytest.mark.parametrize(
    ("said", "sure", "aside"),
    [
        (f"Set aside: [2] [9]\n{OPENS}", False, [2, 9]),
        (OPENS, False, []),
        (f"Set aside: [1] [2]\n{REFUSAL['en']}", False, [1, 2]),
        # The passages speak instead, so the model's word on them does not count either.
        (f"Set aside: [1] [2]\n{REFUSAL['en']}", True, []),
    ],
)
def test_a_reply_says_what_the_model_set_aside(said: str, sure: bool, aside: list[int]) -> None:
    reply = Reply(QUESTION, HITS, 1, refuses=True, sure=sure)
    _ = [*reply.begin(), *reply.feed(said), *reply.finish()]
    assert reply.set_aside == aside


@pytest.mark.parametrize("said", ANSWERS)
@pytest.mark.parametrize("refuses", [True, False])
@pytest.mark.parametrize("sure", [True, False])
def test_a_reply_is_the_same_however_it_streams_and_every_marker_stands_where_its_citation_says(
    said: str, refuses: bool, sure: bool
) -> None:
    whole = run(said, quotes=2, refuses=refuses, sure=sure)
    text, citations, _ = whole
    for citation in citations:
        assert text[citation.index :].startswith(f"[{citation.number}]")
    for size in (1, 2, 3, 7):
        assert run(said, quotes=2, refuses=refuses, sure=sure, size=size) == whole
