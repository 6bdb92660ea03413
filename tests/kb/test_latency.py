"""How long changes took: counted in the store, by lane, and never lost by a restart."""

import pytest

from kb import latency
from kb.latency import BUCKETS, histograms, note
from kb.store import Store
from tests.kb.bases import Base

ENDLESS = float("inf")


def counts(store: Store) -> dict[tuple[str, bool], dict[float, int]]:
    return {
        (h.what, h.bulk): {end: n for end, n in h.counts if n} for h in latency.histograms(store)
    }


def test_a_time_is_counted_in_the_bucket_it_fits_in(base: Base) -> None:
    note(base.store, "searchable", [(False, 0.05), (False, 0.0501), (True, 1e9)])
    note(base.store, "gone", [(False, 0.29)])
    note(base.store, "gone", [(False, 0.3)])
    assert counts(base.store) == {
        ("searchable", False): {0.05: 1, 0.1: 1},
        ("searchable", True): {ENDLESS: 1},
        ("gone", False): {0.3: 2},
    }
    assert [h.seconds for h in histograms(base.store)] == pytest.approx([0.1001, 1e9, 0.59])


def test_all_ends_are_listed_in_order(base: Base) -> None:
    note(base.store, "gone", [(False, 0.07)])
    (one,) = histograms(base.store)
    assert [end for end, _ in one.counts] == [*BUCKETS, ENDLESS]


def test_a_clock_that_was_set_back_makes_no_negative_time(base: Base) -> None:
    note(base.store, "gone", [(False, -3600.0)])
    (one,) = histograms(base.store)
    assert one.seconds == 0.0 and counts(base.store) == {("gone", False): {BUCKETS[0]: 1}}


def test_counts_survive_reopening(base: Base) -> None:
    note(base.store, "searchable", [(False, 0.07)] * 3)
    reader = Store(base.store.file, readonly=True)
    assert counts(reader) == {("searchable", False): {0.1: 3}}
    reader.close()


def test_an_older_bucket_keeps_its_end(base: Base) -> None:
    with base.store.transaction() as db:
        db.execute("INSERT INTO latencies VALUES ('gone', 0, 0.123, 4, 0.4)")
    (one,) = histograms(base.store)
    assert (0.123, 4) in one.counts
