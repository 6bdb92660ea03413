"""Citations are checked, and do not depend on how the stream was cut."""

import pytest

from app.citations import CitationStream, best_window, quote
from kb.records import Chunk, Citation, Hit

PHARMACY = "The pharmacy opens at 8:15 on weekdays. It closes at 18:40. Parcels arrive on Tuesday."


def hit(number: int, text: str, title: str = "Hours", pages: tuple[int, ...] = ()) -> Hit:
    chunk = Chunk(number, number, 100, 100 + len(text), text, "", None)
    return Hit(
        chunk, f"file-{number}", f"{number}.md", title, "0" * 64, 1.0, 0.9, 1.0, 0.5, pages=pages
    )


HITS = [hit(1, PHARMACY), hit(2, "药房每天早上八点开门。周日休息。", "药房")]


def run(text: str, size: int, hits: list[Hit] | None = None) -> tuple[str, list[Citation]]:
    stream = CitationStream(HITS if hits is None else hits)
    pieces = []
    for start in range(0, len(text), size):
        pieces += stream.feed(text[start : start + size])
    pieces += stream.finish()
    shown = "".join(piece for piece in pieces if isinstance(piece, str))
    return shown, [piece for piece in pieces if isinstance(piece, Citation)]


TEXTS = [
    "The pharmacy opens at 8:15 on weekdays. It closes at 18:40 [1]. The moon is far [7].",
    "The pharmacy closes at 18:40. [1]\n\n- opens at 8.15\n- [2] closed\n",
    "药房早上八点开门。[2]周日休息",
    "no end [1",
    "[1] first, 2.5 mg [1][2]. Then [x] and [12] and [1234].",
    "Wait... what?! “Yes.” [1] Done",
    "",
    "   \n\n ",
]


@pytest.mark.parametrize("text", TEXTS)
def test_the_result_does_not_depend_on_how_the_stream_was_cut(text: str) -> None:
    whole = run(text, 10_000)
    assert all(run(text, size) == whole for size in (1, 2, 3, 5, 8))


@pytest.mark.parametrize("text", TEXTS)
def test_every_index_points_at_its_marker(text: str) -> None:
    shown, citations = run(text, 3)
    for citation in citations:
        assert shown[citation.index :].startswith(f"[{citation.number}]")


def test_a_marker_of_a_passage_that_was_not_retrieved_is_dropped() -> None:
    shown, citations = run("The moon is made of cheese [3]. So it is [9].", 4)
    assert shown == "The moon is made of cheese. So it is."
    assert citations == []


def test_the_models_own_marker_is_kept_and_checked() -> None:
    _, (right,) = run("The pharmacy closes at 18:40 [1].", 4)
    assert right.verified and not right.attributed
    assert right.quote == "It closes at 18:40."
    _, (wrong,) = run("The pharmacy closes at 19:55 in winter [1].", 4)
    assert not wrong.verified


def test_a_supported_sentence_without_marker_is_attributed() -> None:
    shown, (citation,) = run("On weekdays the pharmacy opens at 8:15.", 4)
    assert shown == "On weekdays the pharmacy opens at 8:15. [1]"
    assert citation.attributed and citation.verified and citation.number == 1


@pytest.mark.parametrize("markers", ["[2]", "[2][1]"])
def test_a_marker_of_the_wrong_passage_becomes_that_of_the_one_which_says_it(markers: str) -> None:
    shown, (citation,) = run(f"The pharmacy closes at 18:40. {markers}", 4)
    assert shown == "The pharmacy closes at 18:40. [1]"
    assert citation.number == 1 and citation.verified and citation.attributed
    assert citation.quote == "It closes at 18:40."


@pytest.mark.parametrize(
    "text", ["Yes [2].", "Penguins live far south [2].", "The pharmacy closes at 18:40 [1] [2]."]
)
def test_a_marker_stays_where_no_other_passage_is_right(text: str) -> None:
    shown, citations = run(text, 4)
    assert shown == text
    assert not any(citation.attributed for citation in citations)


@pytest.mark.parametrize("claim", ["The pharmacy opens at 9:45.", "Penguins live far south.", "1."])
def test_an_unsupported_sentence_stays_without_a_marker(claim: str) -> None:
    assert run(claim, 4) == (claim, [])


def test_each_sentence_is_cited_once() -> None:
    _, citations = run("The pharmacy opens at 8:15 on weekdays [1]. It closes at 18:40. [1]", 4)
    assert [c.quote for c in citations] == [
        "The pharmacy opens at 8:15 on weekdays.",
        "It closes at 18:40.",
    ]


def test_a_quote_is_the_slice_of_the_passage_at_the_documents_offsets() -> None:
    _, (citation,) = run("The pharmacy closes at 18:40 [1].", 4)
    offset = HITS[0].chunk.start
    assert PHARMACY[citation.start - offset : citation.end - offset] == citation.quote


def test_the_page_is_the_one_on_which_the_quote_starts() -> None:
    paged = hit(1, PHARMACY, pages=(0, 120, 150))
    late = PHARMACY.index("Parcels")
    assert quote(paged, 1, late, len(PHARMACY), index=0).page == 3
    assert quote(paged, 1, 0, 10, index=0).page == 1


def test_a_window_takes_a_second_sentence_only_when_it_earns_its_place() -> None:
    start, end, _ = best_window("opens 8:15 and closes 18:40 on weekdays", HITS[0])
    assert PHARMACY[start:end].startswith("The pharmacy") and PHARMACY[start:end].endswith("18:40.")
    start, end, _ = best_window("the pharmacy opens at 8:15", HITS[0])
    assert PHARMACY[start:end] == "The pharmacy opens at 8:15 on weekdays."


def test_without_passages_nothing_is_cited() -> None:
    assert run("It is so [1]. Really.", 3, hits=[]) == ("It is so. Really.", [])
