"""Rounds of killing the writer: change the folder, kill, look, start again, look again.

A round begins by starting the writer over what the last kill left. When the knowledge base is true
to the folder again, everything that must hold is checked; then the folder changes while the writer
works, and SIGKILL comes at a random moment. What it had acknowledged must be there right away.
"""

import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from kb.catalog import Catalog, Listed
from kb.embedding import FakeEmbedder
from kb.ledger import File
from kb.search import KnowledgeBase
from kb.settings import KbSettings
from kb.verify import verify
from tests.crash.folder import Folder
from tests.crash.process import Writer

PATIENCE = 60.0


class Rounds:
    """One home, and as many rounds over it as wanted. `rng` decides everything but the timing."""

    def __init__(
        self, home: Path, rng: random.Random, settings: Mapping[str, str] | None = None
    ) -> None:
        self._home = home
        self._rng = rng
        self._settings = settings or {}
        catalog = Catalog(home)
        self.folder = Folder(home / "docs", catalog.uploads("handbook"), rng)
        self.listed: Listed = catalog.add("handbook", "fake-64", 0, self.folder.root)
        self.kills = {"starting": 0, "working": 0}

    def run(self, rounds: int, say: Callable[[str], None] = lambda line: None) -> None:
        """Raises AssertionError, naming the round, when something was lost or kept."""
        for number in range(1, rounds + 1):
            try:
                self._round()
            except AssertionError as error:
                raise AssertionError(f"round {number} of {rounds}: {error}") from error
            if number % 20 == 0:
                say(f"{number} rounds, {len(self.folder.words)} versions written")
        self.settle()

    def settle(self) -> None:
        """The writer runs until all is true, is checked, and ends as it is told."""
        writer = self._start()
        try:
            self._wait_until_true(writer)
            self._must_be_whole()
            assert writer.stop() == 0
        finally:
            writer.kill()
        self._must_be_whole()

    def _round(self) -> None:
        writer = self._start()
        try:
            if self._rng.random() < 0.2:  # killed while it starts: no chance to become true
                self.kills["starting"] += 1
                self._happen(0.05)
                time.sleep(self._rng.uniform(0, 3))
            else:
                self.kills["working"] += 1
                self._wait_until_true(writer)
                self._must_be_whole()
                self._happen(self._rng.choice([0.0, 0.02, 0.1]))
                time.sleep(self._rng.uniform(0, 0.8))
            writer.must_live()
            before = self._ledger()
        finally:
            writer.kill()
        self._acknowledged_must_be_found(before)

    def _start(self) -> Writer:
        return Writer(self._home, self._settings)

    def _happen(self, pause: float) -> None:
        for _ in range(self._rng.randint(1, 15)):
            self.folder.happen()
            time.sleep(self._rng.uniform(0, pause))
        if self._rng.random() < 0.3:
            self.folder.load()

    # -- what must hold --------------------------------------------------------------------------

    def _reader(self) -> KnowledgeBase:
        return KnowledgeBase(self.listed.folder, FakeEmbedder(), KbSettings())

    def _ledger(self) -> dict[str, File]:
        kb = self._reader()
        try:
            return {file.id: file for file in kb.ledger.all()}
        finally:
            kb.close()

    def _wait_until_true(self, writer: Writer) -> None:
        kb = self._reader()
        until = time.monotonic() + PATIENCE
        try:
            while (known := _known(kb)) != (disk := self.folder.files()) or not writer.is_ready():
                writer.must_live()
                odd = {p for p in known | disk if known.get(p) != disk.get(p)}
                assert time.monotonic() < until, f"never became true: {sorted(odd)}"
                time.sleep(0.02)
        finally:
            kb.close()

    def _must_be_whole(self) -> None:
        """With the writer back: verify is clean, living words are found and dead ones are not."""
        problems = verify(self.listed, 64)
        assert problems == [], problems
        kb = self._reader()
        try:
            files = self.folder.files()
            for word in self._rng.sample(self.folder.words, min(50, len(self.folder.words))):
                holders = sorted(path for path, text in files.items() if f"{word} " in text)
                assert _found(kb, word) == holders, f"{word}: {_found(kb, word)}, not {holders}"
            for path, text in files.items():
                assert path in _found(kb, word_of(text)), f"{path} is completed and not found"
            alive = kb.store.counts()["chunks"]
            assert len(kb.following.dense) == len(_held(kb)) == alive, "the dense index differs"
            assert kb.store.rows("PRAGMA foreign_key_check") == []
            orphans = (
                "SELECT id FROM documents WHERE dead_seq IS NULL"
                " AND id NOT IN (SELECT document_id FROM chunks WHERE dead_seq IS NULL)"
            )
            assert kb.store.rows(orphans) == [], "a living document without living passages"
        finally:
            kb.close()

    def _acknowledged_must_be_found(self, before: dict[str, File]) -> None:
        """With the writer dead: whatever the ledger calls completed is found as it was read."""
        kb = self._reader()
        try:
            after = {file.id: file for file in kb.ledger.all()}
            # The folder has been still since `before`: what went is off the disk. A sweep would
            # take it in again, and nobody would know.
            there = {file.path for file in after.values()}
            for path in self.folder.files().keys() & {file.path for file in before.values()}:
                assert path in there, f"{path} is on disk, was known, and is not"
            for file in before.values():
                now = after.get(file.id)
                if file.status == "completed" and now and now.changed_at == file.changed_at:
                    assert now.status == "completed", f"{file.path} was acknowledged and is not"
            for file in after.values():
                if file.status == "completed":
                    document = kb.store.document(file.id)
                    assert document is not None, f"{file.path} is completed without a document"
                    found = _found(kb, word_of(document.text))
                    assert file.path in found, f"{file.path} is completed and not found: {found}"
        finally:
            kb.close()


def word_of(text: str) -> str:
    """The word that only this version of a file holds."""
    return text.split("about ", 1)[1].split(" ", 1)[0]


def _known(kb: KnowledgeBase) -> dict[str, str]:
    """Path -> text of the files that are acknowledged; others differ from the disk by an empty."""
    known = {}
    for file in kb.ledger.all():
        document = kb.store.document(file.id) if file.status == "completed" else None
        known[file.path] = document.text if document else ""
    return known


def _found(kb: KnowledgeBase, word: str) -> list[str]:
    """The files whose passages hold the word, as a question for it finds them.

    By words alone: to the fake embedder, passages that differ in one word are much alike.
    """
    hits = kb.search(word, 100, mode="lexical").hits
    files = [kb.ledger.get(h.file_id) for h in hits if f"{word} " in h.chunk.text]
    return sorted({file.path if file else "nobody's" for file in files})


def _held(kb: KnowledgeBase) -> set[int]:
    """The living chunks that the dense index holds."""
    ids = [int(r["id"]) for r in kb.store.rows("SELECT id FROM chunks WHERE dead_seq IS NULL")]
    return set(kb.following.dense.cosines(np.zeros(64, np.float32), ids))
