"""Is a knowledge base whole? Checks what must always hold between text, chunks, vectors and index.

Reads only; repairs nothing (`vademecum kb rebuild` makes the derived index anew). Returns
sentences for people, none of them meaning that all is well.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from kb.catalog import Listed
from kb.errors import StoreBroken
from kb.layout import DATABASE, lexical_of
from kb.lexical import LexicalIndex
from kb.store import Store

SHOWN = 5
"""Examples named for each kind of problem."""


def verify(
    listed: Listed,
    dimensions: int | None = None,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> list[str]:
    """Problems of a knowledge base. `dimensions` is the embedder's; None: all must be alike."""
    store = Store(listed.folder / DATABASE, readonly=True)
    try:
        broken = integrity(store)
        if broken:
            return broken
        return [
            *chunks_match_their_text(store),
            *vectors_are_whole(store, dimensions),
            *life_is_consistent(store),
            *_index_agrees(store, sleep),
        ]
    finally:
        store.close()


def integrity(store: Store) -> list[str]:
    """SQLite's own check of the file."""
    try:
        found = [str(row[0]) for row in store.rows("PRAGMA integrity_check")]
    except StoreBroken as error:
        return [f"the database cannot be read: {error}"]
    return [f"the database is damaged: {line}" for line in found if line != "ok"]


def chunks_match_their_text(store: Store) -> list[str]:
    """`chunk.text == document.text[start:end]`; one document at a time, to stay small."""
    wrong = []
    for document in store.rows("SELECT id FROM documents WHERE dead_seq IS NULL ORDER BY id"):
        (row,) = store.rows("SELECT text FROM documents WHERE id = ?", (document["id"],))
        chunks = store.rows(
            'SELECT id, start, "end", text FROM chunks WHERE document_id = ? AND dead_seq IS NULL',
            (document["id"],),
        )
        wrong += [c["id"] for c in chunks if c["text"] != row["text"][c["start"] : c["end"]]]
    return _told("the text of chunk {} is not what its document says at that place", wrong)


def vectors_are_whole(store: Store, dimensions: int | None) -> list[str]:
    """Every live vector holds `dimensions` halves of two bytes."""
    lengths = store.rows(
        "SELECT length(vector) AS n FROM chunks WHERE dead_seq IS NULL GROUP BY n"
        " ORDER BY count(*) DESC"
    )
    if not lengths:
        return []
    expected = 2 * dimensions if dimensions else int(lengths[0]["n"])
    wrong = store.rows(
        "SELECT id FROM chunks WHERE dead_seq IS NULL AND length(vector) <> ?", (expected,)
    )
    return _told(f"the vector of chunk {{}} is not {expected} bytes long", [r["id"] for r in wrong])


def life_is_consistent(store: Store) -> list[str]:
    """No living chunk of a dead document, no dead chunk of a living one (but those from before it
    was made anew) and none without a living one, no document without its file and no completed file
    without its document, nothing newer than the generation."""
    orphans = store.rows(
        "SELECT c.id FROM chunks c JOIN documents d ON d.id = c.document_id"
        " WHERE c.dead_seq IS NULL AND d.dead_seq IS NOT NULL"
    )
    lost = store.rows(
        "SELECT c.id FROM chunks c JOIN documents d ON d.id = c.document_id"
        " WHERE c.dead_seq > ? AND d.dead_seq IS NULL",
        (int(store.meta("remade") or 0),),
    )
    fileless = store.rows(
        "SELECT id FROM documents WHERE dead_seq IS NULL AND file_id NOT IN (SELECT id FROM files)"
    )
    empty = store.rows(
        "SELECT id FROM documents d WHERE dead_seq IS NULL AND NOT EXISTS"
        " (SELECT 1 FROM chunks WHERE document_id = d.id AND dead_seq IS NULL)"
    )
    unknown = store.rows(
        "SELECT path FROM files f WHERE status = 'completed' AND NOT EXISTS"
        " (SELECT 1 FROM documents WHERE file_id = f.id AND dead_seq IS NULL)"
    )
    ahead = store.rows(
        "SELECT id FROM chunks WHERE max(seq, coalesce(dead_seq, 0)) >"
        " (SELECT coalesce(max(CAST(value AS INTEGER)), 0) FROM meta WHERE key = 'generation')"
    )
    return [
        *_told("chunk {} is alive although its document is dead", (r["id"] for r in orphans)),
        *_told("chunk {} is dead although its document is alive", (r["id"] for r in lost)),
        *_told("document {} is alive and belongs to no file", (r["id"] for r in fileless)),
        *_told("document {} is alive without a passage", (r["id"] for r in empty)),
        *_told("file {} is completed without a living document", (r["path"] for r in unknown)),
        *_told("chunk {} is newer than the knowledge base's generation", (r["id"] for r in ahead)),
    ]


def _index_agrees(store: Store, sleep: Callable[[float], None]) -> list[str]:
    """The index that is in use; again if another took its place meanwhile."""
    while True:
        place = lexical_of(store)
        problems = index_agrees(store, place, sleep=sleep)
        if not problems or lexical_of(store) == place:
            return problems


def index_agrees(
    store: Store, folder: Path, *, sleep: Callable[[float], None] = time.sleep
) -> list[str]:
    """The lexical index has the store's generation and holds exactly the living chunks.

    A running writer commits to the index a moment after the store, so the two are compared again
    for two seconds.
    """
    generation, alive = _alive(store)
    if not folder.is_dir():
        return ["the lexical index is missing"] if generation else []
    try:
        index = LexicalIndex(folder)
        for _ in range(20):
            if index.generation == generation:
                return _difference(alive, index.ids())
            sleep(0.1)
            generation, alive = _alive(store)
            index.reload()
    except (StoreBroken, ValueError) as error:  # ValueError: tantivy, of a torn file
        return [f"the lexical index cannot be read: {error}"]
    side = "ahead of" if index.generation > generation else "behind"
    return [
        f"the lexical index is at generation {index.generation}, {side} the database's {generation}"
    ]


def _alive(store: Store) -> tuple[int, set[int]]:
    """Generation and living chunks, in one statement and so in one snapshot."""
    rows = store.rows(
        "SELECT g.generation, c.id FROM (SELECT coalesce(max(CAST(value AS INTEGER)), 0)"
        " AS generation FROM meta WHERE key = 'generation') g"
        " LEFT JOIN chunks c ON c.dead_seq IS NULL"
    )
    return int(rows[0]["generation"]), {int(r["id"]) for r in rows if r["id"] is not None}


def _difference(alive: set[int], held: Sequence[int]) -> list[str]:
    twice = sorted(i for i, n in Counter(held).items() if n > 1)
    return [
        *_told("chunk {} is missing from the lexical index", sorted(alive - set(held))),
        *_told("the lexical index holds chunk {}, which is not alive", sorted(set(held) - alive)),
        *_told("the lexical index holds chunk {} more than once", twice),
    ]


def _told(sentence: str, ids: Iterable[int | str]) -> list[str]:
    """A sentence for the first few ids or names, and one for the rest."""
    ids = list(ids)
    out = [sentence.format(i) for i in ids[:SHOWN]]
    if len(ids) > SHOWN:
        out.append(f"... and {len(ids) - SHOWN} more like the last one")
    return out
