"""Small knowledge bases for tests: a store with its ledger and lexical index, no files on disk."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kb.chunking import chunk
from kb.embedding import Embedder, FakeEmbedder
from kb.feed import Feed
from kb.layout import DATABASE, LEXICAL
from kb.ledger import Ledger
from kb.lexical import LexicalIndex
from kb.records import Changes, Chunk, Entry, Hit, Parsed, Piece
from kb.remake import note, wanted
from kb.search import KnowledgeBase
from kb.settings import KbSettings
from kb.store import Store, context

FOLDER = "/watched"


class Clock:
    """Epoch seconds that move only when told."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def cut(text: str) -> list[Piece]:
    """A piece for every word, so that a text says how many chunks it makes."""
    pieces, at = [], 0
    for word in text.split():
        at = text.index(word, at)
        pieces.append(Piece(at, at + len(word), word))
        at += len(word)
    return pieces


def unit(rng: np.random.Generator, n: int, dimensions: int) -> npt.NDArray[np.float32]:
    rows = rng.standard_normal((n, dimensions)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def entry(i: int, text: str, dimensions: int = 16, heading: str = "") -> Entry:
    (vector,) = FakeEmbedder(dimensions).passages([text])
    return Entry(i, heading, text, vector.astype(np.float16).tobytes())


def added(generation: int, *entries: Entry) -> Changes:
    return Changes(generation, entries)


def hit(text: str, i: int = 1) -> Hit:
    passage = Chunk(i, i, 0, len(text), text, "", None)
    return Hit(passage, f"file-{i}", f"{i}.md", "", "", 1.0, 0.5, 1.0, 0.5)


class Base:
    """The writing side of one knowledge base, and readers of it."""

    def __init__(
        self, folder: Path, dimensions: int = 64, embedder: Embedder | None = None
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.embedder = embedder or FakeEmbedder(dimensions)
        self.store = Store(folder / DATABASE, create=True)
        note(self.store, wanted(self.embedder.name, KbSettings()))
        self.store.set_meta("id", "vs_test")
        self.ledger = Ledger(self.store)
        self.lexical = LexicalIndex(folder / LEXICAL, readonly=False)
        self._readers: list[KnowledgeBase] = []

    def put(self, path: str, text: str, *, title: str = "", publish: bool = True) -> int:
        file = self.ledger.changed(FOLDER, path)
        pieces = chunk(text, 60)
        vectors = self.embedder.passages([f"{context(title, p.heading)} {p.text}" for p in pieces])
        seq = self.store.put_document(file.id, f"sha-{path}", Parsed(text, title), pieces, vectors)
        if publish:
            self.publish()
        return seq

    def remove(self, path: str, *, publish: bool = True) -> None:
        file = self.ledger.find(FOLDER, path)
        assert file is not None
        self.ledger.forget(file)
        if publish:
            self.publish()

    def publish(self) -> None:
        self.lexical.catch_up(Feed(self.store).changes(self.lexical.generation))

    def reader(self, settings: KbSettings | None = None) -> KnowledgeBase:
        made = KnowledgeBase(self.folder, self.embedder, settings or KbSettings())
        self._readers.append(made)
        return made

    def close(self) -> None:
        for reader in self._readers:
            reader.close()
        self.lexical.close()
        self.store.close()


def random_text(rng: random.Random) -> str:
    """Markdown as files bring it: headings, tables, Chinese, blank lines, runs without spaces."""
    makers: list[Callable[[], str]] = [
        lambda: f"{'#' * rng.randint(1, 6)} Heading {rng.randint(0, 99)} of *things* ##\n",
        lambda: "word and more words. " * rng.randint(1, 40),
        lambda: "长期劳动合同的试用期不得超过六个月。" * rng.randint(1, 12),
        lambda: "甲方，" * rng.randint(1, 80),
        lambda: "x" * rng.randint(1, 900),
        lambda: "\n" * rng.randint(1, 30),
        lambda: " \t" * rng.randint(1, 200) + "| 1 | 2.5 | mg |\n",
        lambda: f"第{rng.randint(1, 99)}条 用人单位应当依法建立制度。\n",
        lambda: f"Article {rng.randint(1, 99)} The employer shall. See Art. 3 e.g. this!\n",
        lambda: "....." * rng.randint(1, 60) + "12\n",
        lambda: "#no heading\n####### seven\n",
        lambda: "  \u3000 ",
    ]
    return "".join(rng.choice(makers)() for _ in range(rng.randint(0, 25)))
