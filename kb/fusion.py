"""How the scores of the two halves of a search become one. Pure; knows no index.

Reciprocal ranks throw the scores away, and lose to the better half where the other is much weaker.
Here the words speak as loudly as the best passage holds of what was asked, and the vectors decide
the rest (docs/decisions/011-hybrid-quality.md).
"""

from collections.abc import Iterable, Mapping

_MOST = 2.2
"""BM25 gives a word at most k1 + 1 times its rarity; k1 is 1.2."""


def fuse(
    cosines: Mapping[int, float],
    lexical: Mapping[int, float],
    rarity: Iterable[float],
    dense_weight: float,
) -> dict[int, float]:
    """A score for every candidate of `cosines`; the best cosine without a word in common has 0.

    `lexical` are BM25 scores of those that share words with the question, and `rarity` the inverse
    document frequency of each of its words, those that no passage holds included.

    BM25 is scaled to the most that the question could reach, not to its best: else a question in
    another language, of which one common word is found, would be decided by that word. Where the
    best passage reaches much of it (the name of a law and an article's number), so much less
    do the cosines weigh. Differences of cosines keep their meaning across questions.
    """
    ideal = _MOST * sum(rarity) or 1.0
    found = min(max(lexical.values(), default=0.0) / ideal, 1.0)
    nearest = max(cosines.values(), default=0.0)
    return {
        i: lexical.get(i, 0.0) / ideal + dense_weight * (1.0 - found) * (cosine - nearest)
        for i, cosine in cosines.items()
    }
