"""Passages that gather for a knowledge base that is being made anew: a small database beside it.

Holds spans and vectors, document by document, and how far it came; texts stay where they are.
Disposable: one that is damaged, or was begun for another recipe, is thrown away. For one thread.
"""

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

from kb.errors import StoreBroken, StoreDown
from kb.records import Piece
from kb.sqlite import translated

FILE = "remake.db"
_SHAPE = """
    CREATE TABLE recipe (embedder TEXT, chunker TEXT, chunk_tokens INTEGER, upto INTEGER) STRICT;
    CREATE TABLE passages (
        id INTEGER PRIMARY KEY,
        document_id INTEGER NOT NULL,
        start INTEGER NOT NULL,
        "end" INTEGER NOT NULL,
        heading TEXT NOT NULL,
        vector BLOB NOT NULL
    ) STRICT;
    CREATE INDEX passages_document ON passages (document_id);
"""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How passages are made: the embedder's name, the chunker's version, a passage's size."""

    embedder: str
    chunker: str
    chunk_tokens: int


class Gathered:
    """What has gathered so far for `recipe`. Raises StoreDown: its disk is full, or it was damaged
    and begins again."""

    def __init__(self, file: Path, recipe: Recipe) -> None:
        self._file = file
        if file.exists() and _begun_for(file) != recipe:
            discard(file)
        with self._translated():
            self._db = sqlite3.connect(file, isolation_level=None)
            self._db.execute("PRAGMA secure_delete = ON")
            if not self._db.execute("SELECT 1 FROM sqlite_schema").fetchone():
                with self._transaction():
                    for statement in filter(str.strip, _SHAPE.split(";")):
                        self._db.execute(statement)
                    self._db.execute("INSERT INTO recipe VALUES (?, ?, ?, 0)", astuple(recipe))

    def close(self) -> None:
        self._db.close()

    @property
    def upto(self) -> int:
        """Documents with ids up to this one are whole."""
        with self._translated():
            ((upto,),) = self._db.execute("SELECT upto FROM recipe").fetchall()
        return int(upto)

    def count(self, document: int) -> int:
        """How many passages of a document there are."""
        sql = "SELECT count(*) FROM passages WHERE document_id = ?"
        with self._translated():
            ((n,),) = self._db.execute(sql, (document,)).fetchall()
        return int(n)

    def add(self, passages: Sequence[tuple[int, Piece, bytes]], upto: int) -> None:
        """Document id, span and vector of each; then, in the same commit, `upto`."""
        with self._translated(), self._transaction():
            self._db.executemany(
                'INSERT INTO passages (document_id, start, "end", heading, vector)'
                " VALUES (?, ?, ?, ?, ?)",
                ((i, p.start, p.end, p.heading, vector) for i, p, vector in passages),
            )
            self._db.execute("UPDATE recipe SET upto = ?", (upto,))

    def keep(self, documents: Collection[int]) -> None:
        """Forget the passages of all other documents."""
        with self._translated(), self._transaction():
            held = self._db.execute("SELECT DISTINCT document_id FROM passages").fetchall()
            gone = [row for row in held if row[0] not in documents]
            self._db.executemany("DELETE FROM passages WHERE document_id = ?", gone)

    def rows(self, size: int) -> Iterator[list[tuple[int, int, int, int, str, bytes]]]:
        """(id, document id, start, end, heading, vector), by id, so many at a time."""
        after = -1
        while True:
            with self._translated():
                found = self._db.execute(
                    "SELECT * FROM passages WHERE id > ? ORDER BY id LIMIT ?", (after, size)
                ).fetchall()
            if not found:
                return
            yield found
            after = found[-1][0]

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            with translated(self._file.name):
                yield
        except StoreBroken as error:
            discard(self._file)
            raise StoreDown(f"{error}; it begins again") from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise


def discard(file: Path) -> None:
    """Throw away what gathered in this file."""
    for each in (file, file.with_name(f"{file.name}-journal")):
        each.unlink(missing_ok=True)


def look(file: Path) -> tuple[Recipe, int] | None:
    """For readers: what gathers in this file and up to which document; None if nothing does."""
    try:
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
            (row,) = db.execute("SELECT * FROM recipe").fetchall()
    except (sqlite3.DatabaseError, ValueError):  # missing, half made or damaged: it tells nothing
        return None
    return Recipe(*row[:3]), int(row[3])


def _begun_for(file: Path) -> Recipe | None:
    found = look(file)
    return found[0] if found else None
