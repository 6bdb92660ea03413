"""One file's story: read -> the same as known? -> parse -> chunk -> embed -> store.

Three steps, so that the worker can share embedding calls and commits between files: `begin` (no
vectors yet), `embed` (as many passages as it is given time for), `finish` (one transaction).
Knows nothing of queues, retries and events.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from ingest.files import Snapshot, read
from ingest.parse import Parser
from ingest.settings import IngestSettings
from kb.chunking import chunk, first_heading
from kb.embedding import Embedder
from kb.ledger import File, Ledger
from kb.records import Parsed, Piece
from kb.settings import KbSettings
from kb.store import Store, to_embed


@dataclass(slots=True)
class Draft:
    """A file on its way into the knowledge base. `parsed` is None where nothing is to be stored."""

    file: File
    size: int
    mtime_ns: int
    sha256: str
    parsed: Parsed | None = None
    pieces: Sequence[Piece] = ()
    vectors: list[npt.NDArray[np.float32]] = field(default_factory=list)

    @property
    def missing(self) -> int:
        """How many passages have no vector yet."""
        return len(self.pieces) - len(self.vectors)


class Pipeline:
    """The steps for one knowledge base. For one thread. `clock` gives epoch seconds."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        embedder: Embedder,
        parser: Parser,
        kb_settings: KbSettings,
        settings: IngestSettings,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._embedder = embedder
        self._parser = parser
        self._chunk_tokens = kb_settings.chunk_tokens
        self._settings = settings
        self._clock = clock

    def begin(self, file: File) -> Draft:
        """Raises FileNotFoundError, StillChanging, Unreadable, ParserDown, OSError."""
        snapshot = read(
            Path(file.folder),
            file.path,
            max_bytes=self._settings.max_file_mb * 2**20,
            settle=self._settings.settle_seconds,
            now=self._clock(),
        )
        draft = Draft(file, snapshot.stamp.size, snapshot.stamp.mtime_ns, snapshot.sha256)
        if not self._is_known(file, snapshot):
            draft.parsed = self._parse(file, snapshot)
            draft.pieces = chunk(draft.parsed.text, self._chunk_tokens)
        return draft

    def embed(self, drafts: Sequence[Draft], at_most: int) -> None:
        """Give vectors to the next passages of these drafts, in one call. Raises EmbedderDown."""
        wanted: list[tuple[Draft, str]] = []
        for draft in drafts:
            title = draft.parsed.title if draft.parsed else ""
            for piece in draft.pieces[len(draft.vectors) :][: at_most - len(wanted)]:
                wanted.append((draft, to_embed(title, piece.heading, piece.text)))
        if not wanted:
            return
        vectors = self._embedder.passages([text for _, text in wanted])
        for (draft, _), vector in zip(wanted, vectors, strict=True):
            draft.vectors.append(vector)

    def finish(self, drafts: Sequence[Draft]) -> list[Draft]:
        """Store these whole drafts in one transaction: old passages die as the new ones appear.

        Returns those that were still wanted; a file that changed meanwhile is work again.
        """
        with self._store.transaction():
            wanted = [draft for draft in drafts if self.is_wanted(draft)]
            for draft in wanted:
                if draft.parsed is not None:
                    vectors = np.stack(draft.vectors)
                    self._store.put_document(
                        draft.file.id, draft.sha256, draft.parsed, draft.pieces, vectors
                    )
        return wanted

    def is_wanted(self, draft: Draft) -> bool:
        """Whether the ledger still waits for exactly this version."""
        now = self._ledger.get(draft.file.id)
        return (
            now is not None
            and now.status == "in_progress"
            and now.changed_at == draft.file.changed_at
        )

    def _is_known(self, file: File, snapshot: Snapshot) -> bool:
        # mtime_ns is 0 for a file that must be read again although its bytes are known: one whose
        # name, and so perhaps its title or type, has changed.
        if not file.mtime_ns:
            return False
        live = self._store.document(file.id)
        return live is not None and live.sha256 == snapshot.sha256

    def _parse(self, file: File, snapshot: Snapshot) -> Parsed:
        parsed = self._parser.parse(file.path, snapshot.data)
        title = parsed.title or first_heading(parsed.text) or PurePosixPath(file.path).stem
        return Parsed(parsed.text, title, parsed.pages)
