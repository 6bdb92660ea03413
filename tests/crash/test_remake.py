"""A writer killed, or a disk filled, while a knowledge base is made anew: the old one goes on."""

import random
import secrets
import time
from pathlib import Path

import pytest

from kb.catalog import Catalog, Listed
from kb.embedders import Embedders
from kb.embedding import FakeEmbedder
from kb.gathered import FILE
from kb.search import KnowledgeBase
from kb.settings import KbSettings
from kb.verify import verify
from tests.crash.process import Writer
from tests.crash.test_disk import fill, long_text, small
from tests.ingest.homes import Home, eventually, files_of

__all__ = ["small"]

ROUNDS = 4
SEED = secrets.randbits(32)
FILES = 20
SETTINGS = {
    "VADEMECUM_INGEST__SETTLE_SECONDS": "0",
    "VADEMECUM_INGEST__TURN_SECONDS": "0.005",  # so that it takes many small steps
}


def opened(listed: Listed) -> KnowledgeBase:
    others = Embedders(KbSettings(embedder="fake:64"), listed.folder)
    return KnowledgeBase(listed.folder, others("fake-64"), KbSettings(), others)


def must_be_whole(listed: Listed, ids: set[str], dimensions: int | None = None) -> str | None:
    """Every file is there under its id and found. Returns the embedder that is in use."""
    # The index of words may be behind by what came last; it catches up when the writer is back.
    assert [p for p in verify(listed, dimensions) if "behind the database's" not in p] == []
    kb = opened(listed)
    try:
        assert {file.id for file in kb.ledger.all()} == ids
        for n in range(FILES):
            assert kb.search(f"okapi{n}", 3, mode="dense").hits
            hits = kb.search(f"okapi{n}", 3, mode="lexical").hits
            assert hits and all(h.filename == f"{n}.md" for h in hits)
        return kb.store.meta("embedder")
    finally:
        kb.close()


@pytest.mark.timeout(60 + 30 * ROUNDS)
def test_a_writer_killed_while_it_makes_one_anew_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    docs = tmp_path / "docs"
    docs.mkdir()
    for n in range(FILES):
        parts = (f"# Part {p}\n\nSomething of okapi{n} is said here." for p in range(120))
        (docs / f"{n}.md").write_text("\n\n".join(parts))
    listed = Catalog(tmp_path).add("handbook", "fake-64", 0, docs)
    kb = opened(listed)

    def run(dimensions: int) -> Writer:
        embedder = {"VADEMECUM_KB__EMBEDDER": f"fake:{dimensions}"}
        return Writer(tmp_path, SETTINGS | embedder)

    first = run(64)
    try:
        eventually(lambda: kb.ledger.counts() == {"completed": FILES}, 60)
    finally:
        first.kill()
    ids = {file.id for file in kb.ledger.all()}
    used: str | None = "fake-64"
    for _ in range(ROUNDS):
        # What the last round left half made is gone on with, or is of no use any more.
        dimensions = rng.choice([d for d in (32, 48, 64) if f"fake-{d}" != used])
        writer = run(dimensions)
        try:
            eventually(writer.is_ready, 60)
            time.sleep(rng.uniform(0, 2.5))
            writer.must_live()
        finally:
            writer.kill()
        used = must_be_whole(listed, ids)
    writer = run(dimensions)
    try:
        eventually(writer.is_ready, 60)
        eventually(lambda: kb.store.meta("embedder") == f"fake-{dimensions}", 60)
        eventually(lambda: not (listed.folder / FILE).exists())
        assert writer.stop() == 0
    finally:
        writer.kill()
    assert must_be_whole(listed, ids, dimensions) == f"fake-{dimensions}"
    kb.close()


def test_a_disk_that_is_full_puts_it_off_and_the_old_one_goes_on(
    small: Home, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.remaking._AGAIN", 0.1)
    small.write("a.md", long_text("okapi"))
    small.sweep()
    listed = small.catalog.get("handbook")
    kb = opened(listed)
    small.opened.append(kb)
    filler = fill(small.path.parent, leave=128 * 1024)
    small.embedder = FakeEmbedder(32)
    with small.following():
        eventually(lambda: "making it anew is put off" in caplog.text, 30)
        assert kb.store.meta("embedder") == "fake-64"
        assert set(files_of(kb, "okapi7")) == {"a.md"}
        filler.unlink()
        eventually(lambda: kb.store.meta("embedder") == "fake-32", 60)
        assert set(files_of(kb, "okapi7")) == {"a.md"}
    assert verify(listed, 32) == []
