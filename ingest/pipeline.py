"""One file's story: read -> the same as known? -> parse -> chunk -> embed -> store.

Three steps, so that files can share embedding calls and commits: `begin` (no vectors yet; in any
thread), `embed` (the passages that it is handed), `finish` (one transaction).
Knows nothing of queues, retries and events.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from ingest.files import Refused, Snapshot, Stamp, read
from ingest.parse import Parser
from ingest.settings import IngestSettings
from kb.chunking import chunk, first_heading
from kb.embedding import Embedder
from kb.errors import Unreadable
from kb.ledger import File, Ledger
from kb.records import Parsed, Piece
from kb.settings import KbSettings
from kb.store import Store, to_embed
from kb.words import estimate_tokens


@dataclass(slots=True, eq=False)
class Draft:
    """A file on its way into the knowledge base. `parsed` is None where nothing is to be stored."""

    file: File
    stamp: Stamp
    sha256: str
    parsed: Parsed | None = None
    pieces: Sequence[Piece] = ()
    passages: Sequence["Passage"] = ()
    vectors: list[npt.NDArray[np.float32] | None] = field(default_factory=list)
    missing: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Passage:
    """What the embedder reads of one piece of a draft. `cost` is its length in estimated tokens."""

    draft: Draft
    index: int
    text: str
    cost: int


class Pipeline:
    """The steps for one knowledge base. `clock` gives epoch seconds as files' times have them."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        embedder: Embedder,
        kb_settings: KbSettings,
        settings: IngestSettings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._embedder = embedder
        self._chunk_tokens = kb_settings.chunk_tokens
        self._settings = settings
        self._clock = clock

    def begin(self, file: File, parser: Parser) -> Draft:
        """Raises FileNotFoundError, StillChanging, Refused, Unreadable, ParserDown, OSError."""
        snapshot = read(
            Path(file.folder),
            file.path,
            max_bytes=self._settings.max_file_mb * 2**20,
            settle=self._settings.settle_seconds,
            now=self._clock(),
            closed=file.closed,
        )
        draft = Draft(file, snapshot.stamp, snapshot.sha256)
        if not self._is_known(file, snapshot):
            draft.parsed = self._parse(file, snapshot, parser)
            draft.pieces = chunk(draft.parsed.text, self._chunk_tokens)
            draft.passages = tuple(_passages(draft, draft.parsed.title))
            draft.vectors = [None] * len(draft.pieces)
            draft.missing = len(draft.pieces)
        return draft

    def embed(self, passages: Sequence[Passage]) -> None:
        """Give vectors to these passages, in one call. Raises EmbedderDown."""
        vectors = self._embedder.passages([passage.text for passage in passages])
        for passage, vector in zip(passages, vectors, strict=True):
            passage.draft.vectors[passage.index] = vector
            passage.draft.missing -= 1

    def finish(self, drafts: Sequence[Draft]) -> list[Draft]:
        """Store these whole drafts in one transaction: old passages die as the new ones appear.

        Returns those that were still wanted; a file that changed meanwhile is work again.
        """
        with self._store.transaction():
            ids = self._ledger.wanted([draft.file for draft in drafts])
            wanted = [draft for draft in drafts if draft.file.id in ids]
            for draft in wanted:
                if draft.parsed is not None:
                    vectors = np.stack([v for v in draft.vectors if v is not None])
                    self._store.put_document(
                        draft.file.id, draft.sha256, draft.parsed, draft.pieces, vectors
                    )
        return wanted

    def _is_known(self, file: File, snapshot: Snapshot) -> bool:
        # mtime_ns is 0 for a file that must be read again although its bytes are known: one whose
        # name, and so perhaps its title or type, has changed.
        if not file.mtime_ns:
            return False
        live = self._store.document(file.id)
        return live is not None and live.sha256 == snapshot.sha256

    def _parse(self, file: File, snapshot: Snapshot, parser: Parser) -> Parsed:
        try:
            parsed = parser.parse(file.path, snapshot.data)
        except Unreadable as error:
            raise Refused(error.code, str(error), snapshot.stamp) from error
        title = parsed.title or first_heading(parsed.text) or PurePosixPath(file.path).stem
        return Parsed(parsed.text, title, parsed.pages)


def _passages(draft: Draft, title: str) -> Iterator[Passage]:
    for index, piece in enumerate(draft.pieces):
        text = to_embed(title, piece.heading, piece.text)
        yield Passage(draft, index, text, estimate_tokens(text))
