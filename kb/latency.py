"""How long changes of files took to be seen by searches, as histograms in the store.

The writer notes, the server shows. Knows nothing of files and of Prometheus.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from kb.store import Store

What = Literal["searchable", "gone"]
BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""Upper ends in seconds; the last bucket has none. Rows keep their ends, should these change."""
_ENDLESS = float("inf")


@dataclass(frozen=True, slots=True)
class Histogram:
    """`counts` are how many took at most so many seconds and more than the end before; by end,
    ascending, the last one infinite."""

    what: What
    bulk: bool
    counts: Sequence[tuple[float, int]]
    seconds: float


def note(store: Store, what: What, taken: Iterable[tuple[bool, float]]) -> None:
    """Count changes that became true: (whether it came in bulk, seconds from event to search)."""
    with store.transaction() as db:
        db.executemany(
            "INSERT INTO latencies VALUES (?, ?, ?, 1, ?) ON CONFLICT (what, bulk, at_most)"
            " DO UPDATE SET count = count + 1, seconds = seconds + excluded.seconds",
            [(what, bulk, _end(seconds), max(0.0, seconds)) for bulk, seconds in taken],
        )


def histograms(store: Store) -> list[Histogram]:
    """What has been noted, in a stable order; empty buckets of today's ends included."""
    rows = store.rows("SELECT * FROM latencies ORDER BY what DESC, bulk, at_most")
    out = []
    for what, bulk in dict.fromkeys((r["what"], bool(r["bulk"])) for r in rows):
        mine = [r for r in rows if (r["what"], bool(r["bulk"])) == (what, bulk)]
        counts = dict.fromkeys((*BUCKETS, _ENDLESS), 0)
        counts |= {float(r["at_most"]): int(r["count"]) for r in mine}
        total = sum(float(r["seconds"]) for r in mine)
        out.append(Histogram(what, bulk, sorted(counts.items()), total))
    return out


def _end(seconds: float) -> float:
    found = bisect_left(BUCKETS, seconds)
    return BUCKETS[found] if found < len(BUCKETS) else _ENDLESS
