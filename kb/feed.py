"""What the indexes read of the store: everything once, in slices, and then what changed.

A chunk lives from its `seq` until its `dead_seq`, generations both (`kb.store`).
"""

from collections.abc import Iterator

from kb.records import Changes, Entry
from kb.store import Row, Store, context

_ENTRIES = (
    "SELECT c.id, d.title, c.heading, c.text, c.vector FROM chunks c"
    " JOIN documents d ON d.id = c.document_id WHERE c.dead_seq IS NULL"
)


class Feed:
    """Of one store, read at any time and from any thread."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def changes(self, since: int) -> Changes:
        """What happened after generation `since`, read in one snapshot. Chunks that came and went
        in between appear nowhere. Fresh if compaction forgot since what has died."""
        with self._store.connection() as db:
            db.execute("BEGIN")
            try:
                generation = self._store.generation()
                fresh = since < int(self._store.meta("purged") or 0)
                embedder = self._store.meta("embedder") or ""
                added = self._store.rows(
                    f"{_ENTRIES} AND c.seq > ? ORDER BY c.id", (-1 if fresh else since,)
                )
                removed = self._store.rows(
                    "SELECT id FROM chunks WHERE dead_seq > ? AND seq <= ?", (since, since)
                )
            finally:
                db.execute("COMMIT")
        forget = () if fresh else tuple(r["id"] for r in removed)
        return Changes(generation, tuple(map(_entry, added)), forget, fresh, embedder)

    def entries(self, after: int, upto: int, limit: int) -> tuple[Entry, ...]:
        """Living chunks of generation `upto` and older whose ids are above `after`, by id."""
        sql = f"{_ENTRIES} AND c.id > ? AND c.seq <= ? ORDER BY c.id LIMIT ?"
        return tuple(map(_entry, self._store.rows(sql, (after, upto, limit))))

    def is_far(self, since: int, limit: int) -> bool:
        """Whether more than `limit` chunks came after generation `since`, or compaction forgot
        what died: then it is better to begin anew than to take over `changes`, all in memory."""
        (row,) = self._store.rows(
            "SELECT count(*) AS n FROM (SELECT 1 FROM chunks WHERE seq > ? LIMIT ?)",
            (since, limit + 1),
        )
        return int(row["n"]) > limit or since < int(self._store.meta("purged") or 0)

    def vectors(self, upto: int, limit: int) -> Iterator[tuple[list[int], list[bytes]]]:
        """Ids and float16 vectors of living chunks of generation `upto` and older, in slices read
        one by one. What dies meanwhile may be among them: `changes(upto)` tells."""
        after = 0
        while found := self._store.rows(
            "SELECT id, vector FROM chunks WHERE dead_seq IS NULL AND id > ? AND seq <= ?"
            " ORDER BY id LIMIT ?",
            (after, upto, limit),
        ):
            after = found[-1]["id"]
            yield [row["id"] for row in found], [row["vector"] for row in found]


def _entry(row: Row) -> Entry:
    return Entry(row["id"], context(row["title"], row["heading"]), row["text"], row["vector"])
