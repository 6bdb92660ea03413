"""Streamed text with `[n]` markers -> text with checked citations. Pure.

A marker passes only if passage n was retrieved. A sentence without one, or whose marker names a
passage that does not support it, is attributed to the one that supports it best, if one does; an
unsupported sentence stays as it is. Fed in pieces of any size, it gives the same result however the
text was cut. Knows nothing of the engine.
"""

import re
from collections.abc import Iterator, Sequence

from kb.records import Citation, Hit, page_at
from kb.words import content_words, sentences, support, words

SUPPORTED = 0.6
"""Share of a sentence's content words (numbers weigh three) that its source must hold."""

_WORTH = 2  # content words; a shorter sentence ("Yes.", "1.") says nothing that could be checked
_CLOSED = r"[。！？；]+[”’」』）]*|[.!?]+[\"'”’)]*(?=\s|$)|\n+"
_EVENT = re.compile(
    rf"(?P<end>{_CLOSED})(?P<markers>(?:[ \t]*\[\d{{1,3}}\])*)|[ \t]*\[(?P<number>\d{{1,3}})\]"
)
_UNDECIDED = re.compile(r"[.!?。！？；\"'”’」』）)]*\s*(?:\[\d{0,3})?$")
_NUMBER = re.compile(r"\d+")

Piece = str | Citation


class CitationStream:
    """Feed generated text, get text and citations in order.

    `hits[n - 1]` is what marker `[n]` means; `offset` is how long the answer is already.
    """

    def __init__(self, hits: Sequence[Hit], offset: int = 0) -> None:
        self._hits = hits
        self._offset = offset
        self._held = ""  # not decided yet: may be a sentence's end, or become a marker
        self._sentence = ""  # what was written of the current sentence
        self._cited: dict[int, bool] = {}  # markers of the current sentence: attributed or not
        self._blank = True  # whether a marker needs no space before it

    def feed(self, text: str) -> Iterator[Piece]:
        """Take in a piece; yield what is decided now."""
        self._held += text
        undecided = _UNDECIDED.search(self._held)
        yield from self._decide(undecided.start() if undecided else len(self._held))

    def finish(self) -> Iterator[Piece]:
        """Yield the rest, and judge the last sentence."""
        yield from self._decide(len(self._held))
        yield from self._close()

    def _decide(self, upto: int) -> Iterator[Piece]:
        done = 0
        while (event := _EVENT.search(self._held, done)) and event.end() <= upto:
            yield from self._write(self._held[done : event.start()])
            if event["number"]:
                yield from self._mark(int(event["number"]))
            else:
                yield from self._end(event["end"], event["markers"])
            done = event.end()
        # A sentence's end that reaches into the undecided part waits there as a whole.
        stop = min(upto, event.start()) if event else upto
        yield from self._write(self._held[done:stop])
        self._held = self._held[max(done, stop) :]

    def _end(self, mark: str, markers: str) -> Iterator[Piece]:
        visible = mark.rstrip("\n")
        yield from self._write(visible)
        for number in _NUMBER.findall(markers):
            yield from self._mark(int(number))
        yield from self._close()
        yield from self._write(mark[len(visible) :])
        self._sentence = ""

    def _write(self, text: str) -> Iterator[Piece]:
        if text:
            self._sentence += text
            self._offset += len(text)
            self._blank = text[-1].isspace()
            yield text

    def _mark(self, number: int) -> Iterator[Piece]:
        already = self._cited.get(number, False)  # set in place of a wrong one
        if 1 <= number <= len(self._hits) and not already:
            right = self._source(number)
            yield from self._cite(right, attributed=right != number)

    def _close(self) -> Iterator[Piece]:
        if not self._cited and (source := self._source(0)):
            yield from self._cite(source, attributed=True)
        self._sentence, self._cited = "", {}

    def _source(self, named: int) -> int:
        """The passage `named` where it supports the sentence, or the one that supports it best.

        `named` where none does, or where that one stands beside the sentence already.
        """
        if len(content_words(self._sentence)) < _WORTH:
            return named
        if named and best_window(self._sentence, self._hits[named - 1])[2] >= SUPPORTED:
            return named
        strengths = [best_window(self._sentence, hit)[2] for hit in self._hits]
        if max(strengths, default=0.0) < SUPPORTED:
            return named
        best = 1 + strengths.index(max(strengths))
        return named if best in self._cited else best

    def _cite(self, number: int, *, attributed: bool) -> Iterator[Piece]:
        space = "" if self._blank else " "
        mark = f"{space}[{number}]"
        citation = cite(
            self._hits[number - 1],
            number,
            self._sentence,
            index=self._offset + len(space),
            attributed=attributed,
        )
        self._cited[number] = attributed
        self._offset += len(mark)
        self._blank = False
        yield mark
        yield citation


def cite(hit: Hit, number: int, claim: str, *, index: int, attributed: bool) -> Citation:
    """A citation of the part of `hit` that supports `claim` best; verified if it does."""
    start, end, strength = best_window(claim, hit)
    return quote(
        hit, number, start, end, index=index, verified=strength >= SUPPORTED, attributed=attributed
    )


def quote(
    hit: Hit,
    number: int,
    start: int,
    end: int,
    *,
    index: int,
    verified: bool = True,
    attributed: bool = False,
) -> Citation:
    """A citation of exactly `hit.chunk.text[start:end]`."""
    at = hit.chunk.start + start
    return Citation(
        number=number,
        index=index,
        file_id=hit.file_id,
        filename=hit.filename,
        page=page_at(hit.pages, at),
        start=at,
        end=at + end - start,
        quote=hit.chunk.text[start:end],
        verified=verified,
        document_sha256=hit.document_sha256,
        attributed=attributed,
    )


def best_window(claim: str, hit: Hit) -> tuple[int, int, float]:
    """The one or two sentences of a hit that support a claim best, and how well (0 to 1).

    Title and heading count as known: a passage about a drug need not repeat its name.
    """
    text = hit.chunk.text
    asked = content_words(claim)
    known = set(words(f"{hit.title} {hit.chunk.heading}"))
    spans = sentences(text) or [(0, len(text))]
    held = [set(words(text[a:b])) for a, b in spans]
    best = (*spans[0], 0.0)
    for i, (start, end) in enumerate(spans):
        one = support(asked, held[i] | known)
        if one > best[2]:
            best = (start, end, one)
        # A second sentence must earn its place: quotes are read, and shorter ones are checked.
        if i + 1 < len(spans):
            two = support(asked, held[i] | held[i + 1] | known) - 0.15
            if two > best[2]:
                best = (start, spans[i + 1][1], two)
    return best
