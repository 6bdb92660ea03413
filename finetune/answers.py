"""What a grounded row teaches to say: the one place where the style of answers is chosen.

An answer is the sentence of the gold passage that holds it, word for word, and its number:

    The Panthers defense gave up just 308 points, ranking sixth in the league. [2]

A small model copies better than it words, what it copies is supported by construction, and its
marker is the number in front of the sentence it copied. Where nothing answers: the house's one
sentence (`kb.prompt.REFUSAL`). Pure.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from kb.records import Hit
from kb.words import CJK, sentences, words

LONGEST = 320
"""Characters of an answer's sentence at most; nobody wants to read a longer one."""
SHORTEST = 3
"""Words of a sentence at least: shorter ones are headings and scraps."""
_BULLET = re.compile(r"^(?:[-*•‣◦|#]+|\(?[a-z0-9ivx]{1,4}[.)])\s+", re.IGNORECASE)
_ENDS = re.compile(r"[.!?。！？][\"'”’)\]』」）]*$")
_TORN = re.compile(r"(?:\b[A-Za-z]\.[A-Za-z]|\b(?:St|Vol|Jr|Sr|Gen|Inc|Ltd|Co|approx|Fig|al))\.$")
"""Where the splitter may have torn a sentence apart: "in much of the U.S." "South, many moved"."""
_NOT_WORD = rf"[^\W{CJK}]"


def says(sentence: str, number: int) -> str:
    """A sentence as an answer, cited."""
    said = " ".join(_BULLET.sub("", sentence).split())
    mark = "" if _ENDS.search(said) else "。" if re.search(f"[{CJK}]$", said) else "."
    return f"{said}{mark} [{number}]"


def holds(text: str, answers: Sequence[str]) -> bool:
    """Whether one of the answers stands in a text, as words of its own (`30` is not in `1308`)."""
    folded = _fold(text)
    for answer in answers:
        wanted = re.escape(_fold(answer).strip(" .。"))
        if wanted and re.search(rf"(?<!{_NOT_WORD}){wanted}(?!{_NOT_WORD})", folded):
            return True
    return False


def sentence_of(
    hit: Hit, question: str, answers: Sequence[str], cues: Mapping[str, str]
) -> str | None:
    """The sentence of a gold passage that answers; None if it is not known for certain."""
    text = hit.chunk.text
    if answers:
        return nearest(question, [s for s in proper(text) if holds(s, answers)])
    for asked, told in cues.items():
        if re.search(asked, question, re.IGNORECASE):
            wanted = told.replace("{title}", re.escape(hit.title))
            found = (s for s in proper(text) if re.search(wanted, s, re.IGNORECASE))
            return next(found, None)
    # One sentence and nothing else: if the passage answers, then this does.
    spans = sentences(text)
    if hit.chunk.start == 0 and len(spans) == 1:
        return next(proper(text), None)
    return None


def proper(text: str) -> Iterator[str]:
    """Sentences that stand for themselves: with words, an end, and no question."""
    for start, end in sentences(text):
        sentence = text[start:end]
        said = _BULLET.sub("", sentence)
        if (
            len(said) <= LONGEST
            and len(words(said)) >= SHORTEST
            and _ENDS.search(said)
            and not _TORN.search(said)
            and not _TORN.search(text[:start].rstrip())
            and not said.endswith(("?", "？"))
            and _is_whole(said)
        ):
            yield sentence


def _is_whole(sentence: str) -> bool:
    """Whether what it opens it closes: the splitter cuts long quotations."""
    pairs = ("()", "[]", "“”", "「」", "『』", "（）", "《》")
    return sentence.count('"') % 2 == 0 and all(
        sentence.count(pair[0]) == sentence.count(pair[1]) for pair in pairs
    )


def nearest(question: str, candidates: Sequence[str]) -> str | None:
    """The candidate that shares most words with the question; the first of equals."""
    asked = set(words(question))
    return max(candidates, key=lambda s: len(asked & set(words(s))), default=None)


def _fold(text: str) -> str:
    return " ".join(text.casefold().split())
