"""A home with one knowledge base, and a live service that follows it, with a fake embedder."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ingest.service import Service
from ingest.settings import IngestSettings
from ingest.worker import Worker
from kb.catalog import Catalog, Listed
from kb.embedding import Embedder, FakeEmbedder
from kb.search import KnowledgeBase
from kb.settings import KbSettings

QUICK = IngestSettings(settle_seconds=0.02, sweep_seconds=3600, retry_seconds=0.02)


def eventually(check: Callable[[], bool], seconds: float = 8.0) -> None:
    """Wait until `check` holds; fail if it does not in time."""
    until = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < until, "did not happen in time"
        time.sleep(0.01)


@dataclass
class Home:
    """A home on disk with knowledge base `handbook` watching `docs/`."""

    path: Path
    embedder: Embedder = field(default_factory=FakeEmbedder)
    settings: IngestSettings = QUICK
    kb_settings: KbSettings = field(default_factory=KbSettings)
    opened: list[KnowledgeBase] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.docs.mkdir(parents=True)
        self.catalog = Catalog(self.path)
        self.catalog.add("handbook", self.embedder.name, 1, watch=self.docs)

    @property
    def docs(self) -> Path:
        return self.path / "docs"

    @property
    def lexical(self) -> Path:
        """Where `handbook`'s first lexical index is."""
        (found,) = self.catalog.folder("handbook").glob("lexical-*-0")
        return found

    def write(self, name: str, text: str) -> Path:
        file = self.docs / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    def worker(self, name: str = "handbook", *, embedder: Embedder | None = None) -> Worker:
        return self.worker_of(self.catalog.get(name), embedder)

    def worker_of(self, listed: Listed, embedder: Embedder | None = None) -> Worker:
        return Worker(
            listed,
            self.catalog.uploads(listed.name),
            embedder or self.embedder,
            self.kb_settings,
            self.settings,
            threading.Event(),
        )

    def sweep(self, *, embedder: Embedder | None = None) -> None:
        """What `ingest sweep` does: one pass to completion."""
        self.worker(embedder=embedder).complete()

    def kb(self, name: str = "handbook") -> KnowledgeBase:
        """A reader, as a server opens it; closed with the test."""
        reader = KnowledgeBase(self.catalog.get(name).folder, self.embedder, self.kb_settings)
        self.opened.append(reader)
        return reader

    @contextmanager
    def following(self) -> Iterator[None]:
        """`ingest run` in this process."""
        stop, ready = threading.Event(), threading.Event()
        service = Service(self.catalog, self.embedder, self.kb_settings, self.settings, stop)
        thread = threading.Thread(target=service.run, args=(ready.set,))
        thread.start()
        try:
            assert ready.wait(10)
            yield
        finally:
            stop.set()
            thread.join(10)
            assert not thread.is_alive()


def files_of(kb: KnowledgeBase, word: str) -> list[str]:
    """The names of the files whose passages hold `word`, as a question for it finds them."""
    return [h.filename for h in kb.search(word, 20).hits if word in h.chunk.text]


def states(kb: KnowledgeBase) -> dict[str, str]:
    return {file.path: file.status for file in kb.ledger.all()}
