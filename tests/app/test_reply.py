"""What leads an answer, what follows it, and whose refusal is believed."""

import math

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
    said: str,
    *,
    quotes: int = 1,
    refuses: bool = True,
    likely: float = 0.0,
    size: int = 1000,
    logprob: float | None = None,
) -> tuple[str, list[Citation], bool]:
    """`logprob`: of all that is said, as much of it with every character."""
    reply = Reply(QUESTION, HITS, quotes, refuses=refuses, likely=likely)
    pieces = [*reply.begin()]
    for start in range(0, len(said), size):
        piece = said[start : start + size]
        share = None if logprob is None else logprob * len(piece) / len(said)
        pieces += reply.feed(piece, share)
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
    text, citations, refused = run(REFUSAL["en"], likely=1.0)
    assert text.startswith(f"“{OPENS}” [1]") and REFUSAL["en"] not in text
    assert citations and not refused


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize(("certain", "refused"), [(0.6, False), (0.99, True)])
def test_a_refusal_is_believed_as_the_model_is_sure_of_it(
    certain: float, refused: bool, size: int
) -> None:
    said = run(REFUSAL["en"], likely=0.3, logprob=math.log(certain), size=size)
    assert said[2] is refused and bool(said[1]) is not refused


def test_how_sure_a_model_is_counts_only_where_it_is_known_of_every_word() -> None:
    reply = Reply(QUESTION, HITS, 0, refuses=True, likely=0.3)
    first, others = REFUSAL["en"][:3], REFUSAL["en"][3:]
    _ = [*reply.begin(), *reply.feed(first, -9.0), *reply.feed(others), *reply.finish()]
    assert reply.refused  # as without any: the chance is too low for an answer


def test_after_quotes_a_refusal_is_only_text() -> None:
    text, _, refused = run(REFUSAL["en"], refuses=False)
    assert text.endswith(REFUSAL["en"]) and not refused


@pytest.mark.parametrize("likely", [0.0, 1.0])
@pytest.mark.parametrize("refuses", [True, False])
@pytest.mark.parametrize("said", ANSWERS)
def test_what_is_set_aside_first_changes_nothing_of_the_answer(
    said: str, refuses: bool, likely: float
) -> None:
    bare = said.rpartition("Set aside: [2]\n")[2].removeprefix("Set aside: [1] [2]\n")
    led = f"Set aside: [1] [2]\n{bare}"
    for size in (1, 4, 1000):
        assert run(led, refuses=refuses, likely=likely, size=size) == run(
            bare, refuses=refuses, likely=likely
        )


@pytest.mark.parametrize(
    ("said", "likely", "aside"),
    [
        (f"Set aside: [2] [9]\n{OPENS}", 0.0, [2, 9]),
        (OPENS, 0.0, []),
        (f"Set aside: [1] [2]\n{REFUSAL['en']}", 0.0, [1, 2]),
        # The passages speak instead, so the model's word on them does not count either.
        (f"Set aside: [1] [2]\n{REFUSAL['en']}", 1.0, []),
    ],
)
def test_a_reply_says_what_the_model_set_aside(said: str, likely: float, aside: list[int]) -> None:
    reply = Reply(QUESTION, HITS, 1, refuses=True, likely=likely)
    _ = [*reply.begin(), *reply.feed(said), *reply.finish()]
    assert reply.set_aside == aside


@pytest.mark.parametrize("said", ANSWERS)
@pytest.mark.parametrize("refuses", [True, False])
@pytest.mark.parametrize("likely", [0.0, 1.0])
def test_a_reply_is_the_same_however_it_streams_and_every_marker_stands_where_its_citation_says(
    said: str, refuses: bool, likely: float
) -> None:
    whole = run(said, quotes=2, refuses=refuses, likely=likely)
    text, citations, _ = whole
    for citation in citations:
        assert text[citation.index :].startswith(f"[{citation.number}]")
    for size in (1, 2, 3, 7):
        assert run(said, quotes=2, refuses=refuses, likely=likely, size=size) == whole
