"""How good is a ranked list? nDCG and recall, written plainly. Pure; knows no search engine."""

import math
from collections.abc import Iterable, Mapping, Sequence


def ndcg(ranked: Sequence[str], relevance: Mapping[str, float], k: int = 10) -> float:
    """Normalised discounted cumulative gain of the first `k`, linear gain, as trec_eval has it
    (Järvelin & Kekäläinen 2002). 1.0 is the best possible order; 0.0 if nothing is relevant."""
    gains = [relevance.get(name, 0.0) for name in ranked[:k]]
    best = sorted((r for r in relevance.values() if r > 0), reverse=True)[:k]
    ideal = _dcg(best)
    return _dcg(gains) / ideal if ideal else 0.0


def recall(ranked: Sequence[str], relevance: Mapping[str, float], k: int = 10) -> float:
    """The share of all relevant names that stand among the first `k`."""
    wanted = {name for name, r in relevance.items() if r > 0}
    return len(wanted & set(ranked[:k])) / len(wanted) if wanted else 0.0


def fold(names: Iterable[str]) -> list[str]:
    """Each name once, where it stands first: a document ranks where its best chunk does."""
    return list(dict.fromkeys(names))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0..1) of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def _dcg(gains: Sequence[float]) -> float:
    return sum(gain / math.log2(rank + 2) for rank, gain in enumerate(gains))
