"""How the scores of the two halves of a search become one. Pure; knows no index.

Reciprocal ranks throw the scores away, and lose to the better half where the other is much weaker.
Here the words speak as loudly as the best passage holds of what was asked, and the vectors decide
the rest (docs/decisions/011-hybrid-quality.md).
"""

from collections.abc import Collection, Iterable, Mapping

_MOST = 2.2
"""BM25 gives a word at most k1 + 1 times its rarity; k1 is 1.2."""


_NEXT = 5
"""How many passages the words have to tell apart before they are believed."""
_ABOVE = 3
"""How many passages of the question's language stand above, by their words, what is in another."""
_LOOKUP = 0.6
"""The share of the cosines' weight where the question names an article."""


def fuse(
    cosines: Mapping[int, float],
    lexical: Mapping[int, float],
    rarity: Mapping[str, float],
    dense_weight: float,
    apart: Collection[int] = (),
) -> dict[int, float]:
    """A score for every candidate of `cosines`; the best cosine without a word in common has 0.

    `lexical` are BM25 scores of those that share words with the question, and `rarity` the inverse
    document frequency of each of its words, those that no passage holds included.

    BM25 is scaled to the most that the question could reach, not to its best: else a question in
    another language, of which one common word is found, would be decided by that word.
    Differences of cosines keep their meaning across questions.

    `apart` are candidates in another language than the question: that they share no word with it
    says nothing against them, so each counts as the third best of the others does.
    """
    ideal = _MOST * sum(rarity.values()) or 1.0
    nearest = max(cosines.values(), default=0.0)
    weight = dense_weight * _share(lexical.values(), ideal, is_lookup(rarity))
    others = sorted((s for i, s in lexical.items() if i not in apart), reverse=True)[:_ABOVE]
    least = dict.fromkeys(apart, others[-1]) if others else {}
    return {
        i: max(lexical.get(i, 0.0), least.get(i, 0.0)) / ideal + weight * (cosine - nearest)
        for i, cosine in cosines.items()
    }


def is_lookup(words: Iterable[str]) -> bool:
    """Whether a question's words name an article (`kb.articles`)."""
    return any(word.startswith("§") for word in words)


def _share(lexical: Iterable[float], ideal: float, lookup: bool) -> float:
    """How much of their weight the cosines have: less, the further the words' best passage stands
    before the others. Words that many passages hold alike (the title of a long document) tell
    nothing about which of them answers, however rare they are. The number of an article does."""
    best, *others = sorted(lexical, reverse=True)[:_NEXT] or [0.0]
    if lookup:
        return _LOOKUP * (1.0 - min(best / ideal, 1.0))
    fifth = others[-1] if len(others) == _NEXT - 1 else 0.0
    return 1.0 - min((best - fifth) / ideal, 1.0)
