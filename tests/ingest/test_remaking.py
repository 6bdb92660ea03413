"""Ingest makes a knowledge base of another embedder anew, and follows its files meanwhile."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.service import Service
from kb.embedders import Embedders
from kb.embedding import Embedder, FakeEmbedder
from kb.errors import EmbedderDown, ModelNotFound
from kb.gathered import FILE
from kb.rebuild import REQUEST
from kb.remake import progress
from kb.renewal import rebuild
from kb.search import KnowledgeBase
from kb.settings import KbSettings
from kb.store import Store
from kb.verify import verify
from tests.ingest.homes import QUICK, Home, eventually, files_of, states
from tests.kb.test_remake import Counting, recipe


class Gated(FakeEmbedder):
    """Of 32 dimensions; the passages of a remaking wait until `gate` is open."""

    def __init__(self) -> None:
        super().__init__(32)
        self.gate = threading.Event()

    def passages(self, texts):  # type: ignore[no-untyped-def]
        if not self.gate.is_set():
            raise EmbedderDown("not yet")
        return super().passages(texts)


@pytest.fixture
def others(tmp_path: Path) -> Embedders:
    return Embedders(KbSettings(embedder="fake:32"), tmp_path)


@pytest.fixture
def reader(home: Home, others: Embedders) -> Iterator[KnowledgeBase]:
    for name, word in {"a.md": "okapi", "b.md": "bongo"}.items():
        home.write(name, f"a {word}")
    home.sweep()
    folder = home.catalog.get("handbook").folder
    kb = KnowledgeBase(folder, FakeEmbedder(64), KbSettings(), others)
    yield kb
    kb.close()


def service(home: Home, embedder: Embedder, others: Embedders, stop: threading.Event) -> Service:
    return Service(home.catalog, embedder, home.kb_settings, home.settings, stop, others=others)


def embedder_now(kb: KnowledgeBase) -> str | None:
    return kb.store.meta("embedder")


def test_a_running_service_makes_it_anew_and_follows_its_files_meanwhile(
    home: Home, reader: KnowledgeBase, others: Embedders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.remaking._AGAIN", 0.05)
    stop, new = threading.Event(), Gated()
    ids = {file.path: file.id for file in reader.ledger.all()}
    thread = threading.Thread(target=service(home, new, others, stop).run)
    thread.start()
    try:
        home.write("a.md", "a tapir")
        (home.docs / "b.md").unlink()
        home.write("c.md", "a quagga")
        # All of it while nothing can be embedded anew: with the embedder that it was made with.
        eventually(lambda: states(reader) == {"a.md": "completed", "c.md": "completed"})
        assert [files_of(reader, w) for w in ("okapi", "bongo", "tapir", "quagga")] == [
            *([], [], ["a.md"], ["c.md"])
        ]
        assert embedder_now(reader) == "fake-64"
        assert progress(reader.store) == {
            "embedder": "fake-32",
            "documents_done": 0,
            "documents": 2,
        }
        new.gate.set()
        eventually(lambda: embedder_now(reader) == "fake-32")
        assert [files_of(reader, w) for w in ("tapir", "quagga")] == [["a.md"], ["c.md"]]
        home.write("d.md", "an okapi")
        eventually(lambda: files_of(reader, "okapi") == ["d.md"])
    finally:
        stop.set()
        thread.join()
    assert reader.ledger.find(str(home.docs), "a.md").id == ids["a.md"]  # type: ignore[union-attr]
    assert progress(reader.store) is None
    assert verify(home.catalog.get("handbook"), 32) == []


def test_other_knowledge_bases_go_on_and_are_not_touched(
    home: Home, reader: KnowledgeBase, others: Embedders, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.md").write_text("an aardvark")
    home.catalog.add("fresh", "fake-32", 1, watch=tmp_path / "other")
    home.embedder = FakeEmbedder(32)
    stop = threading.Event()
    thread = threading.Thread(target=service(home, home.embedder, others, stop).run)
    thread.start()
    try:
        other = home.kb("fresh")
        eventually(lambda: files_of(other, "aardvark") == ["a.md"])
        eventually(lambda: embedder_now(reader) == "fake-32")
        generation = other.store.generation()
        assert rebuild(home.catalog.get("handbook"), recipe(), others) == reader.store.generation()
        assert other.store.generation() == generation
    finally:
        stop.set()
        thread.join()
    assert files_of(other, "okapi") == []


def test_a_sweep_makes_it_anew_first(home: Home, reader: KnowledgeBase, others: Embedders) -> None:
    home.write("c.md", "a tapir")
    home.embedder = FakeEmbedder(32)
    home.sweep()
    assert embedder_now(reader) == "fake-32"
    assert [files_of(reader, w) for w in ("okapi", "tapir")] == [["a.md"], ["c.md"]]
    assert verify(home.catalog.get("handbook"), 32) == []


def test_files_wait_while_the_embedder_that_made_it_is_gone(
    home: Home, reader: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.write("c.md", "a tapir")
    home.settings = QUICK.model_copy(update={"retry_attempts": 2})

    def gone(name: str) -> Embedder:
        raise ModelNotFound(f"no weights {name}")

    new = Gated()
    worker = home.worker(embedder=new)
    worker._others = gone
    worker.complete()
    assert states(reader)["c.md"] == "failed"
    assert files_of(reader, "okapi") == ["a.md"] and files_of(reader, "tapir") == []
    new.gate.set()
    home.sweep(embedder=new)
    assert states(reader)["c.md"] == "completed"
    assert verify(home.catalog.get("handbook"), 32) == []


def test_one_that_was_begun_is_forgotten_when_the_embedder_is_set_back(
    home: Home, reader: KnowledgeBase, others: Embedders
) -> None:
    worker = home.worker(embedder=Gated())
    worker._others = others
    worker.complete()
    assert progress(reader.store) is not None
    generation = reader.store.generation()
    home.sweep()
    assert progress(reader.store) is None
    assert reader.store.generation() == generation
    assert verify(home.catalog.get("handbook"), 64) == []


def test_another_chunker_makes_it_anew_and_embeds_nothing_that_is_cut_as_before(
    home: Home, reader: KnowledgeBase
) -> None:
    generation = reader.store.generation()
    store = Store(reader.store.file)
    store.set_meta("chunker", "1")
    store.close()
    embedder = Counting(64)
    home.sweep(embedder=embedder)
    assert embedder.embedded == 0
    assert reader.store.meta("chunker") != "1"
    assert reader.store.generation() > generation
    assert files_of(reader, "okapi") == ["a.md"]


def test_another_size_of_passages_makes_it_anew(home: Home, reader: KnowledgeBase) -> None:
    home.write("long.md", "The tapir sleeps in the shade today. " * 60)
    home.sweep()
    before = reader.store.counts()["chunks"]
    home.kb_settings = KbSettings(chunk_tokens=40)
    home.sweep()
    assert reader.store.counts()["chunks"] > before
    assert verify(home.catalog.get("handbook"), 64) == []
    generation = reader.store.generation()
    home.sweep()
    assert reader.store.generation() == generation, "once"


def test_indexes_are_made_anew_on_request_without_a_stop(home: Home, reader: KnowledgeBase) -> None:
    with home.following():
        before = reader.store.generation()
        after = rebuild(home.catalog.get("handbook"), recipe("fake-64"), None)  # type: ignore[arg-type]
        assert after == before + 1
        home.write("c.md", "a tapir")
        eventually(lambda: files_of(reader, "tapir") == ["c.md"])
        assert files_of(reader, "okapi") == ["a.md"]
    assert verify(home.catalog.get("handbook"), 64) == []


def test_a_request_that_nobody_took_is_taken_at_the_next_start(
    home: Home, reader: KnowledgeBase
) -> None:
    request = reader.store.file.with_name(REQUEST)
    request.touch()
    generation = reader.store.generation()
    home.sweep()
    assert not request.exists()
    assert reader.store.generation() == generation + 1


def test_one_that_is_removed_while_it_is_made_anew_leaves_nothing(
    home: Home, reader: KnowledgeBase, others: Embedders, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.md").write_text("an aardvark")
    home.catalog.add("handbook2", "fake-64", 1, watch=tmp_path / "other")
    home.worker("handbook2").complete()
    kept = home.kb("handbook2")
    stop = threading.Event()
    thread = threading.Thread(target=service(home, Gated(), others, stop).run)
    thread.start()
    try:
        eventually(lambda: reader.store.file.with_name(FILE).exists())
        home.catalog.remove("handbook")
        eventually(lambda: [p.name for p in (home.path / "kb").iterdir()] == ["handbook2"])
        (tmp_path / "other" / "b.md").write_text("a bongo")
        eventually(lambda: files_of(kept, "bongo") == ["b.md"])
    finally:
        stop.set()
        thread.join()
    assert [p.name for p in (home.path / "kb").iterdir()] == ["handbook2"]
    assert files_of(kept, "aardvark") == ["a.md"]
