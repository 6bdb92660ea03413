"""A knowledge base made anew for another embedder or chunker, beside the old passages.

The new passages gather beside (`kb.gathered`), document by document, made from the stored texts,
while the old ones answer and go on being written. At the end one transaction lets the old ones die
and the new ones appear, as any other change does: the next generation. Files, their ids and states,
documents and their hashes are never touched. A crash before that commit leaves the old ones whole,
and what has gathered is taken up again. For the one writing process.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kb.chunking import VERSION, chunk
from kb.embedding import Embedder
from kb.gathered import FILE, Gathered, Recipe, discard, look
from kb.rebuild import SLICE, switch
from kb.records import Entry, Piece
from kb.settings import KbSettings
from kb.store import Row, Store, context, to_embed

_NEXT = (
    "SELECT id, title, text FROM documents WHERE id > ? AND dead_seq IS NULL ORDER BY id LIMIT 1"
)
_INSERT = (
    'INSERT INTO chunks (id, document_id, start, "end", heading, text, vector, seq)'
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_AT_ONCE = 1024
"""Passages of one step when nothing else is waiting."""


def wanted(embedder: str, settings: KbSettings) -> Recipe:
    """How passages are made today."""
    return Recipe(embedder, str(VERSION), settings.chunk_tokens)


def made(store: Store, today: Recipe) -> Recipe:
    """How a knowledge base's passages were made. One that does not say how large they are is as
    large as today's."""
    tokens = store.meta("chunk_tokens")
    return Recipe(
        store.meta("embedder") or "",
        store.meta("chunker") or "",
        int(tokens) if tokens else today.chunk_tokens,
    )


def note(store: Store, recipe: Recipe) -> None:
    """Write down how the passages were made."""
    with store.transaction():
        store.set_meta("embedder", recipe.embedder)
        store.set_meta("chunker", recipe.chunker)
        store.set_meta("chunk_tokens", str(recipe.chunk_tokens))


def progress(store: Store) -> dict[str, Any] | None:
    """For readers: what a remaking under way will be made with, and how far it is."""
    found = look(store.file.with_name(FILE))
    if found is None:
        return None
    recipe, upto = found
    (row,) = store.rows(
        "SELECT count(*) AS documents, coalesce(sum(id <= ?), 0) AS done FROM documents"
        " WHERE dead_seq IS NULL",
        (upto,),
    )
    return {
        "embedder": recipe.embedder,
        "documents_done": row["done"],
        "documents": row["documents"],
    }


def forget(store: Store) -> None:
    """Throw away what gathered: nothing is to be made anew any more."""
    discard(store.file.with_name(FILE))


@dataclass(frozen=True, slots=True)
class _New:
    """A gathered passage with its text, and the id that it will have."""

    id: int
    document_id: int
    piece: Piece
    title: str
    vector: bytes


class Remake:
    """`step` until nothing is left, then `finish`. Both raise StoreDown, StoreBroken, EmbedderDown,
    and can be called again."""

    def __init__(self, store: Store, recipe: Recipe, embedder: Embedder) -> None:
        self._store = store
        self._recipe = recipe
        self._embedder = embedder
        self._gathered = Gathered(store.file.with_name(FILE), recipe)
        self._seen = -1
        self._cut: tuple[int, list[Piece]] = (0, [])

    def close(self) -> None:
        self._gathered.close()

    def step(self, at_most: int) -> bool:
        """Gather the next passages, at most so many. Returns whether there may be more."""
        self._forget_dead()
        upto, taken = self._gathered.upto, list[tuple[Row, Piece]]()
        while len(taken) < at_most and (document := self._next(upto)):
            pieces = self._pieces(document)
            done, room = self._gathered.count(document["id"]), at_most - len(taken)
            taken += [(document, piece) for piece in pieces[done : done + room]]
            if done + room < len(pieces):
                break
            upto = document["id"]
        vectors = self._vectors(taken)
        self._gathered.add(
            [(d["id"], piece, v) for (d, piece), v in zip(taken, vectors, strict=True)], upto
        )
        return self._next(upto) is not None

    def finish(self) -> int:
        """Gather what is left, and switch. Returns the new generation."""
        while self.step(_AT_ONCE):
            pass
        self._forget_dead()
        slices = ([_entry(new) for new in news] for news in self._news())
        generation = switch(self._store, slices, self._replace)
        self.close()
        forget(self._store)
        return generation

    def _replace(self, db: sqlite3.Connection, generation: int) -> None:
        db.execute("UPDATE chunks SET dead_seq = ? WHERE dead_seq IS NULL", (generation,))
        for news in self._news():
            db.executemany(_INSERT, (_row(new, generation) for new in news))
        note(self._store, self._recipe)
        self._store.set_meta("remade", str(generation))

    def _news(self) -> Iterator[list[_New]]:
        """All that gathered, with ids that no passage ever had, since indexes know them by id."""
        (last,) = self._store.rows(
            "SELECT coalesce(max(seq), 0) AS id FROM sqlite_sequence WHERE name = 'chunks'"
        )
        for rows in self._gathered.rows(SLICE):
            texts = self._texts({row[1] for row in rows})
            yield [
                _New(
                    last["id"] + i,
                    document,
                    Piece(start, end, texts[document]["text"][start:end], heading),
                    texts[document]["title"],
                    vector,
                )
                for i, document, start, end, heading, vector in rows
            ]

    def _texts(self, documents: set[int]) -> dict[int, Row]:
        marks = ",".join("?" * len(documents))
        sql = f"SELECT id, title, text FROM documents WHERE id IN ({marks})"
        return {row["id"]: row for row in self._store.rows(sql, tuple(documents))}

    def _next(self, after: int) -> Row | None:
        found = self._store.rows(_NEXT, (after,))
        return found[0] if found else None

    def _pieces(self, document: Row) -> list[Piece]:
        if self._cut[0] != document["id"]:  # a large one comes again in every step
            self._cut = (document["id"], chunk(document["text"], self._recipe.chunk_tokens))
        return self._cut[1]

    def _vectors(self, taken: Sequence[tuple[Row, Piece]]) -> list[bytes]:
        """Only what has changed is embedded, if the embedder has not."""
        known = self._known({d["id"] for d, _ in taken})
        keys = [(d["id"], piece.heading, piece.text) for d, piece in taken]
        texts = [
            to_embed(d["title"], piece.heading, piece.text)
            for (d, piece), key in zip(taken, keys, strict=True)
            if key not in known
        ]
        fresh = iter(self._embedder.passages(texts).astype(np.float16))
        return [known[key] if key in known else next(fresh).tobytes() for key in keys]

    def _known(self, documents: set[int]) -> dict[tuple[int, str, str], bytes]:
        if self._store.meta("embedder") != self._recipe.embedder:
            return {}
        marks = ",".join("?" * len(documents))
        sql = (
            "SELECT document_id, heading, text, vector FROM chunks WHERE dead_seq IS NULL"
            f" AND document_id IN ({marks})"
        )
        found = self._store.rows(sql, tuple(documents))
        return {(r["document_id"], r["heading"], r["text"]): r["vector"] for r in found}

    def _forget_dead(self) -> None:
        if (generation := self._store.generation()) == self._seen:
            return
        alive = self._store.rows("SELECT id FROM documents WHERE dead_seq IS NULL")
        self._gathered.keep({row["id"] for row in alive})
        self._seen = generation


def _entry(new: _New) -> Entry:
    return Entry(new.id, context(new.title, new.piece.heading), new.piece.text, new.vector)


def _row(new: _New, generation: int) -> tuple[object, ...]:
    p = new.piece
    return (new.id, new.document_id, p.start, p.end, p.heading, p.text, new.vector, generation)
