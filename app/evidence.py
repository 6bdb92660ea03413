"""Do the passages hold an answer? A chance between 0 and 1, from the search's own scores. Pure.

A logistic model of the best hit: its cosine, how far that stands above the background of related
passages, and how much of the question's (rarity-weighed) words it holds. Fitted by
`python -m bench.evidence` on public questions, each once with its passage in the knowledge base and
once without; the sample handbook had no part in it (docs/decisions/006-refusal.md).
"""

import math

from kb.records import Found

SURE = 0.4
"""From this chance on a model's refusal is not believed."""

_COSINE, _BACKGROUND, _COVERAGE, _BIAS = 43.2, -25.1, 3.76, -19.23
# For knowledge bases too small to have a background.
_SMALL_COSINE, _SMALL_COVERAGE, _SMALL_BIAS = 20.4, 4.77, -20.52


def chance(found: Found) -> float:
    """The estimated chance that the hits answer the question; 0 without hits.

    The fit saw as many answerable as unanswerable questions, the latter hard ones; a threshold well
    below one half is right where most questions have an answer.
    """
    if not found.hits:
        return 0.0
    best = found.hits[0]
    if found.background is None:
        logit = _SMALL_COSINE * best.cosine + _SMALL_COVERAGE * best.coverage + _SMALL_BIAS
    else:
        logit = (
            _COSINE * best.cosine
            + _BACKGROUND * found.background
            + _COVERAGE * best.coverage
            + _BIAS
        )
    return 1.0 / (1.0 + math.exp(-logit))
