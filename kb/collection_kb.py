"""A collection's passages as a knowledge base of its own, embedded once and kept for the next run.

`HOME/eval/<hash of corpus, embedder, chunker>/`, in the same layout as any knowledge base. A run
that was interrupted goes on where it stopped. Knows nothing of queries or scores.
"""

import hashlib
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kb.chunking import VERSION as CHUNKER
from kb.chunking import chunk
from kb.collection import Collection, Passage
from kb.embedding import Embedder
from kb.errors import StoreBroken
from kb.feed import Feed
from kb.layout import DATABASE, LEXICAL
from kb.ledger import Ledger
from kb.lexical import LexicalIndex
from kb.locks import WRITER, exclusive
from kb.records import Parsed
from kb.settings import KbSettings
from kb.store import Store, to_embed

GROUP = 512
"""Passages of one embedding call and one transaction."""
_FOLDER = "collection"
Report = Callable[[str], None]


def folder_of(collection: Collection, embedder: str, settings: KbSettings, home: Path) -> Path:
    identity = f"{collection.corpus_sha256} {embedder} {CHUNKER} {settings.chunk_tokens}"
    return home / "eval" / hashlib.sha256(identity.encode()).hexdigest()[:16]


def build(
    collection: Collection,
    embedder: Embedder,
    settings: KbSettings,
    home: Path,
    report: Report,
    clock: Callable[[], float] = time.monotonic,
) -> Path:
    """The folder of the whole knowledge base, made at need. Speeds are kept in its `meta`."""
    folder = folder_of(collection, embedder.name, settings, home)
    with exclusive(folder / WRITER, f"the evaluation in {folder}"):
        store = Store(folder / DATABASE, create=True)
        try:
            if store.meta("complete") is None:
                _Builder(store, embedder, settings, report, clock).run(collection.passages)
                began = clock()
                _index(store, folder / LEXICAL)
                with store.transaction():
                    _add(store, "ingest_seconds", clock() - began)
                store.set_meta("complete", "1")
            else:
                _index(store, folder / LEXICAL)
        finally:
            store.close()
    return folder


class _Builder:
    def __init__(
        self,
        store: Store,
        embedder: Embedder,
        settings: KbSettings,
        report: Report,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._ledger = Ledger(store)
        self._embedder = embedder
        self._settings = settings
        self._report = report
        self._clock = clock

    def run(self, passages: Sequence[Passage]) -> None:
        if self._store.meta("embedder") is None:
            with self._store.transaction():
                self._store.set_meta("id", "vs_evaluation")
                self._store.set_meta("created_at", str(int(time.time())))
                self._store.set_meta("embedder", self._embedder.name)
                self._store.set_meta("chunker", str(CHUNKER))
        known = {file.path for file in self._ledger.all()}
        # Texts of like length share a batch, so that little of it is padding.
        todo = sorted((p for p in passages if p.id not in known), key=lambda p: len(p.text))
        for start in range(0, len(todo), GROUP):
            began = self._clock()
            group = todo[start : start + GROUP]
            self._put(group, began)
            done = start + len(group) + len(known)
            self._report(f"embedded {done} of {len(passages)} passages")

    def _put(self, group: Sequence[Passage], began: float) -> None:
        cut = [chunk(p.text, self._settings.chunk_tokens) for p in group]
        texts = [
            to_embed(p.title, piece.heading, piece.text)
            for p, pieces in zip(group, cut, strict=True)
            for piece in pieces
        ]
        vectors = self._embedder.passages(texts)
        at = 0
        with self._store.transaction():
            for passage, pieces in zip(group, cut, strict=True):
                file = self._ledger.changed(_FOLDER, passage.id)
                self._store.put_document(
                    file.id,
                    hashlib.sha256(passage.text.encode()).hexdigest(),
                    Parsed(passage.text, passage.title),
                    pieces,
                    vectors[at : at + len(pieces)],
                )
                at += len(pieces)
                self._ledger.completed(file, size=len(passage.text), mtime_ns=0)
            _add(self._store, "ingest_seconds", self._clock() - began)
            _add(self._store, "ingest_count", len(group))


def _add(store: Store, key: str, value: float) -> None:
    store.set_meta(key, str(float(store.meta(key) or 0) + value))


def _index(store: Store, folder: Path) -> None:
    try:
        index = LexicalIndex(folder, readonly=False)
    except StoreBroken:  # of another version's words: it is derived
        shutil.rmtree(folder)
        index = LexicalIndex(folder, readonly=False)
    try:
        if index.generation < store.generation():
            index.catch_up(Feed(store).changes(index.generation))
    finally:
        index.close()
