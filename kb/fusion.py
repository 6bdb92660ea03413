"""How the scores of the two halves of a search become one. Pure; knows no index.

Reciprocal ranks throw the scores away, and lose to the better half where the other is much weaker.
Here a half weighs what its scores say (docs/decisions/011-hybrid-quality.md).
"""

import math
from collections.abc import Iterable, Mapping

_MOST = 2.2
"""BM25 gives a word at most k1 + 1 times its rarity; k1 is 1.2."""


def fuse(
    cosines: Mapping[int, float],
    lexical: Mapping[int, float],
    rarity: Iterable[float],
    dense_weight: float,
) -> dict[int, float]:
    """A score for every candidate of `cosines`; 0 is the best cosine without a word in common.

    `lexical` are BM25 scores of those that share words with the question, and `rarity` the inverse
    document frequency of each of its words, those that no passage holds included.

    Scaled to the best BM25 alone, the lexical half would speak as loudly where it found one common
    word as where it found all (a question in another language!); scaled to the most that the
    question could reach, it would be too quiet where questions are long. Halfway, geometrically,
    lies what served every collection. Differences of cosines keep their meaning across questions.
    """
    most = max(lexical.values(), default=0.0)
    scale = math.sqrt(most * _MOST * sum(rarity)) or 1.0
    nearest = max(cosines.values(), default=0.0)
    return {
        i: lexical.get(i, 0.0) / scale + dense_weight * (cosine - nearest)
        for i, cosine in cosines.items()
    }
