"""Do the passages hold an answer? A chance between 0 and 1, from the search's own scores. Pure.

A logistic model of the best hit: its cosine, how far that stands above the background of related
passages, and how much of the question's (rarity-weighed) words it holds. Fitted by
`python -m bench.evidence` on public questions, each once with its passage in the knowledge base and
once without; the sample handbook had no part in it (docs/decisions/006-refusal.md). Across
languages there are next to no words to go by, and the bar is higher (016-across-languages.md).
"""

import math

from kb.records import Found, Hit
from kb.words import is_chinese

BELIEVED_BELOW = 0.4
"""The chance of an answer below which a refusal stands, where it is not known how sure it is."""
ODDS_NEEDED = 12
"""A refusal stands from this many times the odds of an answer on (docs/decisions/014)."""

_COSINE, _BACKGROUND, _COVERAGE, _BIAS = 43.2, -25.1, 3.76, -19.23
# For knowledge bases too small to have a background.
_SMALL_COSINE, _SMALL_COVERAGE, _SMALL_BIAS = 20.4, 4.77, -20.52
# For a hit in another language than the question. The fit's bias was -11.09. Words that would tell
# an answer from its neighbours are missing: .5 of the fit becomes .15, from which on a plain model
# is asked; .7 where passages in the question's own language stand beside it, which were looked
# through for an answer already.
_APART_COSINE, _APART_BACKGROUND, _APART_COVERAGE = 68.0, -57.2, 2.33
_APART_BIAS, _BESIDE_BIAS = -12.83, -13.67


def chance(question: str, found: Found) -> float:
    """The estimated chance that the hits answer the question; 0 without hits.

    The fit saw as many answerable as unanswerable questions, the latter hard ones; a threshold well
    below one half is right where most questions have an answer.
    """
    return strongest(question, found)[0]


def strongest(question: str, found: Found) -> tuple[float, Hit | None]:
    """The chance, and the hit that speaks for it: the best one, or the best in the question's own
    language, which is easier to be sure of."""
    chinese = is_chinese(question)
    own = next((h for h in found.hits if is_chinese(h.chunk.text) == chinese), None)
    best: tuple[float, Hit | None] = (0.0, None)
    for hit in dict.fromkeys(h for h in (*found.hits[:1], own) if h is not None):
        likely = _sigmoid(_logit(hit, found, apart=hit is not own))
        if likely > best[0]:
            best = (likely, hit)
    return best


def refusal_stands(sureness: float | None, likely: float) -> bool:
    """Whether a model's refusal stands, which it gave with the probability `sureness` (None: not
    known), where the passages hold an answer with the chance `likely`. Two witnesses: the odds of
    the one against those of the other."""
    if sureness is None:
        return likely < BELIEVED_BELOW
    return sureness * (1 - likely) >= ODDS_NEEDED * likely * (1 - sureness)


def _logit(hit: Hit, found: Found, *, apart: bool) -> float:
    background = found.background if found.apart is None or not apart else found.apart
    if background is None:
        return _SMALL_COSINE * hit.cosine + _SMALL_COVERAGE * hit.coverage + _SMALL_BIAS
    if apart:
        return (
            _APART_COSINE * hit.cosine
            + _APART_BACKGROUND * background
            + _APART_COVERAGE * hit.coverage
            + (_APART_BIAS if found.apart is None else _BESIDE_BIAS)
        )
    return _COSINE * hit.cosine + _BACKGROUND * background + _COVERAGE * hit.coverage + _BIAS


def _sigmoid(logit: float) -> float:
    return 1.0 / (1.0 + math.exp(-logit))
