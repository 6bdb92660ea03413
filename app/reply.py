"""What the model says -> what is said: passages' own words, checked citations, a refusal. Pure.

Each half is good at what the other is not: a tuned model tells that the references hold no answer,
and the sentences nearest to the question nearly always hold the answer where there is one
(docs/decisions/014). They lead a plain model's answer. A model that was taught to refuse is heard
first, and they follow; where the retriever is surer of an answer than the model of its refusal,
they take its place. Knows nothing of the engine.
"""

import math
from collections.abc import Iterator, Sequence

from app.aside import AsideWatch
from app.citations import CitationStream, Piece, quote
from app.evidence import refusal_stands
from app.refusing import RefusalWatch
from kb.prompt import nearest
from kb.records import Hit

ALONE = 3
"""Sentences that are quoted where the passages speak alone."""
_FROM = 3  # passages


class Reply:
    """`begin`, then `feed` with the model's text as it comes, then `finish`; at the end `refused`,
    and the numbers that the model `set_aside` in a line of its own, which is no part of the answer.

    `quotes` sentences lead the answer, or follow it where the model `refuses` by itself. `likely`:
    the chance that the passages hold an answer.
    """

    def __init__(
        self, query: str, hits: Sequence[Hit], quotes: int, *, refuses: bool, likely: float
    ) -> None:
        self._query, self._hits = query, hits
        self._refuses, self._likely = refuses, likely
        self._quotes = quotes
        self._lead = [] if refuses else [*quoted(query, hits, quotes)]
        if self._lead:
            self._lead.append("\n\n")
        self._citing = CitationStream(hits, _length(self._lead))
        self._aside = AsideWatch()
        # After quotes a refusal is only text.
        self._watch = RefusalWatch(watching=not self._lead)
        self._said = ""
        self._logprob: float | None = 0.0
        self.refused = False
        self.set_aside: list[int] = []

    def begin(self) -> Iterator[Piece]:
        """What can be said before the model speaks."""
        yield from self._lead

    def feed(self, text: str, logprob: float | None = None) -> Iterator[Piece]:
        """What can be said now. `logprob`: of this text, where it is known."""
        if logprob is not None and self._logprob is not None:
            self._logprob += logprob
        elif text:
            self._logprob = None
        yield from self._hear(self._citing.feed(self._watch.feed(self._aside.feed(text))))

    def finish(self) -> Iterator[Piece]:
        """The rest."""
        yield from self._hear(self._citing.feed(self._watch.feed(self._aside.rest())))
        self.set_aside = self._aside.numbers
        # A refusal is all that the model said, but for a line that set passages aside before it.
        sureness = None if self._logprob is None else math.exp(self._logprob)
        self.refused = self._watch.refused and refusal_stands(sureness, self._likely)
        if self.refused:
            yield self._watch.rest().strip()
        elif self._watch.refused:
            # With the refusal goes what it set aside: the passages speak.
            self.set_aside = []
            yield from quoted(self._query, self._hits, ALONE)
        else:
            yield from self._hear(self._citing.feed(self._watch.rest()))
            yield from self._hear(self._citing.finish())
            if self._refuses:
                yield from quoted(self._query, self._hits, self._quotes, after=self._said)

    def _hear(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        for piece in pieces:
            self._said += piece if isinstance(piece, str) else ""
            yield piece


def quoted(query: str, hits: Sequence[Hit], most: int, *, after: str = "") -> Iterator[Piece]:
    """The `most` sentences nearest to the question, word for word, each with its citation; those
    that do not stand in `after` already, and as what comes after it."""
    offset = len(after)
    gap = "\n\n" if after else ""
    for found in nearest(query, hits[:_FROM])[:most]:
        sentence = _flat(found.text)
        if sentence in after:
            continue
        number = 1 + hits.index(found.hit)
        said = f"{gap}“{sentence}” "
        yield said
        yield quote(found.hit, number, found.start, found.end, index=offset + len(said))
        mark = f"[{number}]"
        yield mark
        offset += len(said) + len(mark)
        gap = "\n"


def _flat(sentence: str) -> str:
    """A sentence as it reads in an answer: without list marks and the table's bars."""
    return " ".join(sentence.lstrip("-*•|# ").rstrip("| ").replace("|", ", ").split())


def _length(pieces: Sequence[Piece]) -> int:
    return sum(len(piece) for piece in pieces if isinstance(piece, str))
