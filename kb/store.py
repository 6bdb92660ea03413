"""SQLite: the one truth of a knowledge base. Documents, chunks, vectors, and the generation.

Every committed change gets the next `seq`, the generation. A chunk lives from its `seq` until its
`dead_seq`; indexes are derived from that and may be thrown away. Knows nothing of how text was
parsed or vectors were made. The ledger of files lives in the same database (`kb.ledger`).
"""

import json
import sqlite3
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kb.errors import StoreBroken
from kb.migrations import migrate, must_be_current
from kb.records import Chunk, Document, Parsed, Piece, page_at, shown_name
from kb.sqlite import translated

Row = sqlite3.Row
_CONTEXT = 200
"""Characters of title and heading together. An embedder reads some 500 tokens: a paragraph that was
marked as a heading would leave no room for the text."""


class Store:
    """One database file, which only `create` makes. A single connection behind a lock: calls are
    short and may come from any thread. `readonly` refuses writes, and sees every commit of the
    writing process. Raises StoreBroken, StoreDown."""

    def __init__(self, file: Path, *, readonly: bool = False, create: bool = False) -> None:
        if not create and not file.is_file():
            raise StoreBroken(f"{file.name} does not exist")
        self.file = file
        self._lock = threading.RLock()
        # By mode too: a knowledge base that was removed meanwhile must not come back empty.
        at = f"{file.absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
        with translated(file.name):
            self._db = sqlite3.connect(
                at, uri=True, timeout=30, check_same_thread=False, isolation_level=None
            )
        try:
            with translated(file.name):
                self._prepare(readonly)
        except BaseException:
            self._db.close()
            raise

    def _prepare(self, readonly: bool) -> None:
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = WAL")
        # FULL: a commit that was acknowledged survives a power cut.
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA foreign_keys = ON")
        if readonly:
            self._db.execute("PRAGMA query_only = ON")
            must_be_current(self._db)
        else:
            self._db.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten
            migrate(self._db)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """For this thread alone, and in no transaction. Raises StoreBroken, StoreDown."""
        with self._lock, translated(self.file.name):
            yield self._db

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Run one reading statement. Raises StoreBroken, StoreDown."""
        with self.connection() as db:
            return db.execute(sql, parameters).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; nested use joins the outer transaction. Raises StoreBroken, StoreDown."""
        with self._lock, translated(self.file.name):
            if self._db.in_transaction:
                yield self._db
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise

    def _roll_back(self) -> None:
        if self._db.in_transaction:  # SQLite may have rolled back by itself (a full disk)
            self._db.execute("ROLLBACK")

    # -- meta ------------------------------------------------------------------------------------

    def meta(self, key: str) -> str | None:
        found = self.rows("SELECT value FROM meta WHERE key = ?", (key,))
        return str(found[0]["value"]) if found else None

    def set_meta(self, key: str, value: str) -> None:
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def generation(self) -> int:
        """The number of the last committed change; 0 for a knowledge base that never had one."""
        return int(self.meta("generation") or 0)

    # -- writing ---------------------------------------------------------------------------------

    def put_document(
        self,
        file_id: str,
        sha256: str,
        parsed: Parsed,
        pieces: Sequence[Piece],
        vectors: npt.NDArray[np.float32],
    ) -> int:
        """Insert a document with its chunks and retire the file's previous one, in one step.

        `vectors` has shape (len(pieces), dimensions) and unit length. Returns the new generation.
        """
        halves = np.asarray(vectors, dtype=np.float16)
        with self.transaction() as db:
            seq = self._next(db)
            self._retire(db, file_id, seq)
            document = db.execute(
                "INSERT INTO documents (file_id, sha256, title, text, pages, seq)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (file_id, sha256, parsed.title, parsed.text, json.dumps(parsed.pages), seq),
            ).lastrowid
            db.executemany(
                'INSERT INTO chunks (document_id, start, "end", heading, text, vector, seq)'
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    (document, p.start, p.end, p.heading, p.text, v.tobytes(), seq)
                    for p, v in zip(pieces, halves, strict=True)
                ),
            )
        return seq

    def retire(self, file_id: str) -> int:
        """Mark the file's document and chunks dead. Returns the generation (moved or not)."""
        with self.transaction() as db:
            alive = db.execute(
                "SELECT 1 FROM documents WHERE file_id = ? AND dead_seq IS NULL", (file_id,)
            ).fetchone()
            if alive:
                self._retire(db, file_id, self._next(db))
        return self.generation()

    def touch(self) -> int:
        """Start a new generation for a change that moves no chunk (a renamed file)."""
        with self.transaction() as db:
            return self._next(db)

    def _next(self, db: sqlite3.Connection) -> int:
        seq = self.generation() + 1
        db.execute("INSERT OR REPLACE INTO meta VALUES ('generation', ?)", (str(seq),))
        return seq

    def _retire(self, db: sqlite3.Connection, file_id: str, seq: int) -> None:
        db.execute(
            "UPDATE chunks SET dead_seq = ? WHERE dead_seq IS NULL AND document_id IN"
            " (SELECT id FROM documents WHERE file_id = ? AND dead_seq IS NULL)",
            (seq, file_id),
        )
        db.execute(
            "UPDATE documents SET dead_seq = ? WHERE file_id = ? AND dead_seq IS NULL",
            (seq, file_id),
        )

    # -- reading ---------------------------------------------------------------------------------

    def live(self, ids: Sequence[int]) -> dict[int, Row]:
        """Rows of those chunks that are alive now, with their document's and file's names."""
        marks = ",".join("?" * len(ids))
        found = self.rows(
            'SELECT c.id, c.document_id, c.start, c."end", c.heading, c.text, d.title, d.pages,'
            " d.sha256, d.file_id, f.path, f.folder FROM chunks c"
            " JOIN documents d ON d.id = c.document_id JOIN files f ON f.id = d.file_id"
            f" WHERE c.dead_seq IS NULL AND c.id IN ({marks})",
            tuple(ids),
        )
        return {row["id"]: row for row in found}

    def living(self, digests: Collection[str]) -> set[str]:
        """Those of these SHA-256s whose document is alive now."""
        # One parameter, however many: SQLite allows 32,766.
        found = self.rows(
            "SELECT DISTINCT sha256 FROM documents WHERE dead_seq IS NULL"
            " AND sha256 IN (SELECT value FROM json_each(?))",
            (json.dumps(list(digests)),),
        )
        return {row["sha256"] for row in found}

    def document(self, file_id: str) -> Document | None:
        """The live document of a file."""
        found = self.rows(
            "SELECT d.*, f.path FROM documents d JOIN files f ON f.id = d.file_id"
            " WHERE d.file_id = ? AND d.dead_seq IS NULL",
            (file_id,),
        )
        if not found:
            return None
        r = found[0]
        pages = tuple(json.loads(r["pages"]))
        name = shown_name(r["path"])
        return Document(r["id"], file_id, name, r["title"], r["text"], r["sha256"], pages)

    def counts(self) -> dict[str, int]:
        """Live documents and chunks, and dead chunks whose text is still on disk."""
        (row,) = self.rows(
            "SELECT (SELECT count(*) FROM documents WHERE dead_seq IS NULL) AS documents,"
            # A difference of two indexes' lengths: the rows themselves are many and long.
            " (SELECT count(*) FROM chunks)"
            " - (SELECT count(*) FROM chunks WHERE dead_seq IS NOT NULL) AS chunks,"
            " (SELECT count(*) FROM chunks WHERE dead_seq > ?) AS dead_chunks",
            (int(self.meta("compacted") or 0),),
        )
        return dict(row)


def chunk_of(row: Row) -> Chunk:
    """A row of `Store.live` as a record."""
    pages = tuple(json.loads(row["pages"]))
    return Chunk(
        row["id"],
        row["document_id"],
        row["start"],
        row["end"],
        row["text"],
        row["heading"],
        page_at(pages, row["start"]),
    )


def to_embed(title: str, heading: str, text: str) -> str:
    """What the embedder reads of a chunk: its context, then its text."""
    return f"{context(title, heading)}\n{text}"


def context(title: str, heading: str) -> str:
    """What stands before a chunk's text when it is embedded or indexed: title, then heading. Of
    long ones the title's beginning and the heading's end, which is nearest to the text."""
    title = title[: max(_CONTEXT // 2, _CONTEXT - len(heading))]
    heading = heading[-max(1, _CONTEXT - len(title)) :]
    return " > ".join(part for part in (title, heading) if part)
