"""An answer -> what can be said of it without asking anybody: right, refused, cited. Pure.

The server's evaluation and the trainer's use the same judge, so that their figures can be compared.
Words decide, not a model: an answer is right if it holds one of the known answers (SQuAD's
normalisation), whatever else it says. Knows nothing of engines or data sets.
"""

import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from kb.prompt import split_aside

_MARKER = re.compile(r"\[(\d{1,3}(?:\s*[,，、]\s*\d{1,3})*)\]")
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_THOUSANDS = re.compile(r"(?<=\d)[,，](?=\d{3}\b)")
_NO_WORD = re.compile(r"[^\w\s.]|_|(?<!\d)\.|\.(?!\d)")
_SPOKEN = re.compile(r"[a-z0-9]")
_SOURCE = (
    r"(?:knowledge base|references?|passages?|texts?|excerpts?|documents?|context|sources?"
    r"|(?:provided |given )?information)"
)
_REFUSED = re.compile(
    rf"(?:{_SOURCE}\W+(?:\w+\W+){{0,4}}?(?:holds? no|contains? no|(?:do|does|did)(?:n['’]t| not)"
    r"|gives? no|has no|have no|cannot|is silent))"
    rf"|(?:not (?:be )?(?:mentioned|stated|provided|given|specified|found|answered|contained)"
    rf" (?:in|by|from) (?:\w+ ){{0,3}}?{_SOURCE})"
    r"|(?:(?:can(?:not|['’]t| not)|unable to|could(?:n['’]t| not)) (?:\w+ )?"
    r"(?:answer|find|determine))"
    rf"|(?:(?:there is|i (?:have|found)) no (?:answer|mention|information))"
    r"|没有能够回答|无法(?:回答|确定|找到|得知)|不能回答|未(?:提及|提到|说明|找到)"
    r"|没有(?:提及|提到|说明|给出|找到|相关|答案|关于)",
    re.IGNORECASE,
)
_SENTENCES = re.compile(r"(?<=[.!?。！？])\s*|\n+")


@dataclass(frozen=True, slots=True)
class Judged:
    """One answer to one question over numbered passages."""

    correct: bool
    """Holds a known answer, and is no refusal."""
    refused: bool
    cited: bool
    """Has at least one marker that means a passage of the prompt."""
    cited_gold: bool
    """One of them is a passage that holds the answer."""
    citations: int
    """Different passages that are cited."""
    gold_citations: int
    """Those of them that hold the answer."""

    @property
    def answered(self) -> bool:
        return not self.refused


def judge(answer: str, answers: Sequence[str], gold: Collection[int], passages: int) -> Judged:
    """Judge an answer. `gold` are the numbers, from 1, of the passages that hold the answer;
    `passages` how many there are: a marker beyond them points nowhere and counts for nothing."""
    said = spoken(answer)
    refusal = refused(said)
    cited = {number for number in markers(said) if 1 <= number <= passages}
    right = cited & set(gold)
    return Judged(
        correct=not refusal and holds(said, answers),
        refused=refusal,
        cited=bool(cited),
        cited_gold=bool(right),
        citations=len(cited),
        gold_citations=len(right),
    )


def spoken(answer: str) -> str:
    """The answer as it is served: without the line that says which references it sets aside."""
    return split_aside(answer)[1].strip()


def markers(text: str) -> list[int]:
    """The numbers of `[n]` and `[n, m]`, in order."""
    return [int(n) for found in _MARKER.finditer(text) for n in re.findall(r"\d+", found[1])]


def refused(text: str) -> bool:
    """Whether the answer begins by saying that the references do not tell (its first sentence:
    later ones qualify an answer), or says nothing."""
    first = next((s for s in _SENTENCES.split(text) if s.strip()), "")
    return not first or bool(_REFUSED.search(first))


def holds(text: str, answers: Sequence[str]) -> bool:
    """Whether one of the answers occurs in the text, as whole words where words are spaced."""
    said = normalise(_MARKER.sub(" ", text))
    return any(_occurs(wanted, said) for answer in answers if (wanted := normalise(answer)))


def normalise(text: str) -> str:
    """SQuAD's normalisation: lower case, no articles, no punctuation, single spaces; besides,
    full-width forms folded, `1,200` is 1200, and 2.5 keeps its point."""
    folded = _THOUSANDS.sub("", unicodedata.normalize("NFKC", text).lower())
    return " ".join(_ARTICLE.sub(" ", _NO_WORD.sub(" ", folded)).split())


def _occurs(wanted: str, said: str) -> bool:
    # Not \b: it does not part Chinese characters from digits. "10" must not occur in "2010".
    start = r"(?<![a-z0-9])" if _SPOKEN.match(wanted) else ""
    end = r"(?![a-z0-9])" if _SPOKEN.match(wanted[-1]) else ""
    return re.search(f"{start}{re.escape(wanted)}{end}", said) is not None
