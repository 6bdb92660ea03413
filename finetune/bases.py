"""Knowledge bases to make rows from: a live one, read only, or one made of a collection for this.

Knows nothing of questions or rows.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kb import chunking
from kb.catalog import Catalog
from kb.collection import Collection
from kb.collection_kb import Report, build
from kb.embedders import Embedders
from kb.embedding import Embedder
from kb.search import KnowledgeBase
from kb.settings import KbSettings


class Bases:
    """All of one home; its embedder is loaded when first needed."""

    def __init__(self, home: Path, settings: KbSettings, report: Report) -> None:
        self._home = home
        self._settings = settings
        self._embedders = Embedders(settings, home)
        self._today: Embedder | None = None
        self._report = report

    @property
    def retrieval(self) -> dict[str, Any]:
        """By what passages are cut and found, as a manifest says it."""
        return {
            "embedder": self._settings.embedder_identity,
            "chunker": {"tokens": self._settings.chunk_tokens, "version": chunking.VERSION},
        }

    @contextmanager
    def live(self, name: str) -> Iterator[KnowledgeBase]:
        """Raises UnknownKnowledgeBase, StoreBroken."""
        yield from self._open(Catalog(self._home).get(name).folder)

    @contextmanager
    def made(self, collection: Collection) -> Iterator[KnowledgeBase]:
        """Embedded once, and kept for the next run in HOME/eval."""
        embedder = self._embedders.today()
        yield from self._open(build(collection, embedder, self._settings, self._home, self._report))

    def _open(self, folder: Path) -> Iterator[KnowledgeBase]:
        today = self._embedders.today()
        kb = KnowledgeBase(folder, today, self._settings, self._embedders)
        try:
            yield kb
        finally:
            kb.close()
