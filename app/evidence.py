"""Do the passages hold an answer? A chance between 0 and 1, from the search's own scores. Pure.

A logistic model of the best hit: its cosine, how far that stands above the background of related
passages, and how much of the question's (rarity-weighed) words it holds. Fitted by
`python -m bench.evidence` on public questions, each once with its passage in the knowledge base and
once without; the sample handbook had no part in it (docs/decisions/006-refusal.md). Across
languages there are next to no words to go by, and the bar is higher (016-across-languages.md).
"""

import math

from kb.records import Found
from kb.words import is_chinese

SURE = 0.4
"""From this chance on a model's refusal is not believed."""

_COSINE, _BACKGROUND, _COVERAGE, _BIAS = 43.2, -25.1, 3.76, -19.23
# For knowledge bases too small to have a background.
_SMALL_COSINE, _SMALL_COVERAGE, _SMALL_BIAS = 20.4, 4.77, -20.52
# For a best hit in another language than the question. The fit's bias was -11.09. Without words to
# tell an answer from its neighbours, what is as likely as not there counts as too little: .45 of
# the fit becomes .15, from which on a plain model is asked.
_APART_COSINE, _APART_BACKGROUND, _APART_COVERAGE, _APART_BIAS = 68.0, -57.2, 2.33, -12.62


def chance(question: str, found: Found) -> float:
    """The estimated chance that the hits answer the question; 0 without hits.

    The fit saw as many answerable as unanswerable questions, the latter hard ones; a threshold well
    below one half is right where most questions have an answer.
    """
    if not found.hits:
        return 0.0
    best = found.hits[0]
    if is_chinese(question) != is_chinese(best.chunk.text) and found.background is not None:
        logit = (
            _APART_COSINE * best.cosine
            + _APART_BACKGROUND * found.background
            + _APART_COVERAGE * best.coverage
            + _APART_BIAS
        )
    elif found.background is None:
        logit = _SMALL_COSINE * best.cosine + _SMALL_COVERAGE * best.coverage + _SMALL_BIAS
    else:
        logit = (
            _COSINE * best.cosine
            + _BACKGROUND * found.background
            + _COVERAGE * best.coverage
            + _BIAS
        )
    return 1.0 / (1.0 + math.exp(-logit))
