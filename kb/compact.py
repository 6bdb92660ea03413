"""Compaction: what is dead leaves the disk. Text, titles and vectors, from database and index.

Retiring a document only marks it, so that readers can follow. Compaction makes it true for bytes:

1. every living passage of the lexical index is written again and the old segments go: they are
   immutable, and hold the words of the dead as long as a living passage keeps them;
2. dead rows are emptied. Their ids stay until the compaction after this one, so that a reader
   that is behind still learns what to forget; rows emptied by the last one are deleted;
3. VACUUM writes the database anew without them, and the write-ahead log is cut to nothing.

Each step is short, and a crash between two of them costs only the work: it begins again. Knows
neither files nor when it is wanted (`ingest.compaction`).
"""

import sqlite3
from collections.abc import Callable, Iterator

from kb.catalog import Listed
from kb.feed import Feed
from kb.lexical import LexicalIndex
from kb.rebuild import clear, usable
from kb.records import Changes
from kb.sqlite import cut_log, vacuum
from kb.store import Store
from kb.writing import opened

_PASSAGES = 1000
"""Passages of the lexical index that one step writes again."""
_ROWS = 5000
"""Rows that one step empties or deletes."""
_RUNNING = "compacting"


def is_unfinished(store: Store) -> bool:
    """Whether a compaction began and did not end."""
    return store.meta(_RUNNING) is not None


def dead(store: Store) -> dict[str, int]:
    """What died and is still on disk (bytes of text and vectors), and emptied rows, which keep
    nothing but ids."""
    last = (int(store.meta("compacted") or 0),)
    size = "coalesce(sum(length(CAST(text AS BLOB))), 0)"
    (documents,) = store.rows(
        f"SELECT count(*) AS n, {size} AS bytes FROM documents WHERE dead_seq > ?", last
    )
    (chunks,) = store.rows(
        f"SELECT count(*) AS n, {size} + coalesce(sum(length(vector)), 0) AS bytes FROM chunks"
        " WHERE dead_seq > ?",
        last,
    )
    (emptied,) = store.rows("SELECT count(*) AS n FROM chunks WHERE dead_seq <= ?", last)
    return {
        "dead_documents": documents["n"],
        "dead_chunks": chunks["n"],
        "dead_bytes": documents["bytes"] + chunks["bytes"],
        "emptied_chunks": emptied["n"],
    }


def compact(listed: Listed, now: Callable[[], float]) -> dict[str, int]:
    """All of it at once, for when ingest does not run. Returns what was `dead` before.

    Raises WriterBusy, StoreBroken, StoreDown, UnknownKnowledgeBase.
    """
    what = f"knowledge base {listed.name} (stop ingest, or `vademecum up`, first): it"
    with opened(listed, what) as store:
        before = dead(store)
        lexical = usable(store)
        try:
            clear(store)  # an index that was of no use holds words of the dead
            for _ in compaction(store, lexical, now):
                pass
            lexical.catch_up(Feed(store).changes(lexical.generation))
        finally:
            lexical.close()
        return before


def compaction(
    store: Store,
    lexical: LexicalIndex,
    now: Callable[[], float],
    wanted: Callable[[], bool] = lambda: False,
) -> Iterator[None]:
    """The steps, for the one writing process, which publishes between them as usual.

    `wanted` tells that other work has come; VACUUM, the one long step, then gives way and is tried
    again by the next. `now` gives epoch seconds. Raises StoreDown, for one where the disk is full.
    """
    cutoff = min(store.generation(), lexical.generation)
    store.set_meta(_RUNNING, str(cutoff))
    yield from _rewrite(store, lexical, cutoff)
    lexical.drop_dead_segments()
    yield
    yield from _empty(store, cutoff)
    yield from _until(store, lambda db: vacuum(db, wanted))
    yield
    yield from _until(store, cut_log)
    with store.transaction() as db:
        db.execute("DELETE FROM meta WHERE key = ?", (_RUNNING,))
        store.set_meta("compacted_at", str(now()))
        store.touch()  # so that readers let go of the old segments


def _until(store: Store, work: Callable[[sqlite3.Connection], bool]) -> Iterator[None]:
    while True:
        with store.connection() as db:
            if work(db):
                return
        yield


def _rewrite(store: Store, lexical: LexicalIndex, cutoff: int) -> Iterator[None]:
    after = 0
    while entries := Feed(store).entries(after, cutoff, _PASSAGES):
        ids = tuple(entry.id for entry in entries)
        lexical.catch_up(Changes(lexical.generation, entries, ids))
        after = ids[-1]
        yield


def _empty(store: Store, cutoff: int) -> Iterator[None]:
    before = int(store.meta("compacted") or 0)
    purge = ("chunks", "documents")  # in this order: a chunk points to its document
    for table in purge:
        sql = (
            f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE dead_seq <= ? LIMIT ?)"
        )
        yield from _in_slices(store, sql, before, before)
    blank = {
        "chunks": ("text = '', heading = '', vector = x''", "length(vector)"),
        "documents": ("text = '', title = '', sha256 = '', pages = '[]'", "length(sha256 || text)"),
    }
    for table, (values, full) in blank.items():
        sql = (
            f"UPDATE {table} SET {values} WHERE id IN"
            f" (SELECT id FROM {table} WHERE dead_seq <= ? AND {full} > 0 LIMIT ?)"
        )
        yield from _in_slices(store, sql, cutoff, before)
    store.set_meta("compacted", str(cutoff))


def _in_slices(store: Store, sql: str, upto: int, purged: int) -> Iterator[None]:
    """Run the statement until it finds nothing. Whoever is behind `purged` must be told before a
    row of theirs is gone."""
    changed = _ROWS
    while changed == _ROWS:
        with store.transaction() as db:
            store.set_meta("purged", str(purged))
            changed = db.execute(sql, (upto, _ROWS)).rowcount
        yield
