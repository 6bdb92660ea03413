"""Which knowledge bases exist: folders under `VADEMECUM_HOME/kb`, found by name or by id.

Makes and removes them; never looks at a document.
"""

import re
import secrets
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kb.chunking import VERSION as CHUNKER
from kb.errors import AlreadyExists, BadData, StoreBroken, StoreDown, UnknownKnowledgeBase
from kb.layout import DATABASE, lexical_at
from kb.ledger import Ledger
from kb.locks import CATALOG, held
from kb.settings import nearest
from kb.store import Store

DEFAULT = "handbook"
_NAME = re.compile(r"(?!vs_)[a-z0-9][a-z0-9_-]{0,62}")  # vs_… is an id, and finds by id


@dataclass(frozen=True, slots=True)
class Listed:
    """A knowledge base as `kb list` shows it. `problem` says why it cannot be opened; one that
    cannot goes by its name, since its id is not known."""

    id: str
    name: str
    folder: Path
    watched: tuple[str, ...]
    created_at: int
    problem: str = ""
    embedder: str = ""


class Catalog:
    """The knowledge bases of one home. Stateless: each call looks at the disk."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._root = home / "kb"

    def folder(self, name: str) -> Path:
        return self._root / name

    def uploads(self, name: str) -> Path:
        """Where uploaded bytes of a knowledge base become files; always followed."""
        return self.home / "uploads" / name

    def all(self) -> list[Listed]:
        """Every one, by name; a damaged one is listed with its problem and hides no other."""
        listed = []
        for file in sorted(self._root.glob(f"*/{DATABASE}")):
            if file.parent.name.startswith("."):
                continue
            try:
                listed.append(self._read(file.parent))
            except (StoreBroken, StoreDown) as error:
                if file.exists():  # else: removed while we looked
                    name = file.parent.name
                    listed.append(Listed(name, name, file.parent, (), 0, str(error)))
        return listed

    def get(self, name_or_id: str) -> Listed:
        """Raises UnknownKnowledgeBase with the nearest name."""
        everything = self.all()
        for one in everything:
            if name_or_id in (one.name, one.id):
                return one
        hint = nearest(name_or_id, [one.name for one in everything]) if everything else "none exist"
        raise UnknownKnowledgeBase(f"no knowledge base {name_or_id!r}; {hint}")

    def add(self, name: str, embedder: str, created_at: int, watch: Path | None = None) -> Listed:
        """Make an empty knowledge base whose vectors come from `embedder`, following `watch`.

        Built beside and renamed, so that a half-made one is never seen. Raises BadData,
        AlreadyExists.
        """
        if not _NAME.fullmatch(name):
            raise BadData(
                f"{name!r} is not a name: small letters, digits, - and _, at most 63;"
                " not an id (vs_…)"
            )
        if watch is not None and not watch.is_dir():
            raise BadData(f"the folder to watch, {watch}, does not exist")
        taken = AlreadyExists(f"knowledge base {name} exists already")
        if (self._root / name).exists():
            raise taken
        with held(self.home / CATALOG, alone=False):
            self._make(name, embedder, created_at, watch, taken)
        return self.get(name)

    def _make(
        self, name: str, embedder: str, created_at: int, watch: Path | None, taken: AlreadyExists
    ) -> None:
        fresh = self._root / f".new-{name}-{secrets.token_hex(4)}"
        fresh.mkdir(parents=True)
        store = Store(fresh / DATABASE, create=True)
        with store.transaction():
            store.set_meta("id", f"vs_{secrets.token_hex(12)}")
            store.set_meta("lexical", lexical_at(store, 0).name)
            store.set_meta("created_at", str(created_at))
            store.set_meta("embedder", embedder)
            store.set_meta("chunker", str(CHUNKER))
            if watch is not None:
                Ledger(store).add_folder(str(watch.resolve()))
        store.close()
        self.uploads(name).mkdir(parents=True, exist_ok=True)
        try:
            fresh.rename(self._root / name)
        except OSError as error:
            shutil.rmtree(fresh, ignore_errors=True)
            if (self._root / name).exists():  # somebody else was faster
                raise taken from error
            raise

    def remove(self, name_or_id: str) -> Listed:
        """Forget a knowledge base: its state and its uploads. Watched folders are not touched.

        Alone: one that is made meanwhile may want the same name, and so the same uploads folder.
        """
        self.get(name_or_id)  # before a home that is not there is made for the lock
        with held(self.home / CATALOG, alone=True):
            one = self.get(name_or_id)
            # Renamed first: whoever follows it sees it vanish in one step.
            doomed = self._root / f".removed-{one.name}-{secrets.token_hex(4)}"
            one.folder.rename(doomed)
            self._erase(one.name, doomed)
        return one

    def clear(self) -> None:
        """Finish what a crash interrupted: remove half-made and half-removed knowledge bases.

        Waits for those that are being made or removed now.
        """
        with held(self.home / CATALOG, alone=True):
            for folder in self._root.glob(".new-*"):
                shutil.rmtree(folder)
            for folder in self._root.glob(".removed-*"):
                name = folder.name.removeprefix(".removed-").rpartition("-")[0]
                if self.folder(name).exists():  # a later one of the name: the uploads are its own
                    shutil.rmtree(folder)
                else:
                    self._erase(name, folder)

    def migrate(self) -> None:
        """Bring every database to today's shape, which readers need. What cannot be opened is left
        as it is: `all` tells its problem. For the one process that writes."""
        for file in self._root.glob(f"*/{DATABASE}"):
            with suppress(StoreBroken, StoreDown):
                Store(file).close()

    def _erase(self, name: str, doomed: Path) -> None:
        # Its uploads go the same way, so that none is left for a later one of this name.
        if (uploads := self.uploads(name)).exists():
            uploads.rename(doomed / f"uploads-{secrets.token_hex(4)}")
        shutil.rmtree(doomed)

    def _read(self, folder: Path) -> Listed:
        store = Store(folder / DATABASE, readonly=True)
        try:
            return Listed(
                store.meta("id") or "",
                folder.name,
                folder,
                tuple(Ledger(store).folders()),
                int(store.meta("created_at") or 0),
                embedder=store.meta("embedder") or "",
            )
        finally:
            store.close()
