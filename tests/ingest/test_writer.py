"""One writer a knowledge base; a derived index that lags or broke is made whole from SQLite."""

import logging
import shutil
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from ingest.writer import open_writer
from kb.catalog import Listed
from kb.compact import compact
from kb.embedding import FakeEmbedder
from kb.errors import WriterBusy
from kb.layout import lexical_of
from kb.records import Parsed, Piece
from tests.ingest.homes import Home, eventually, files_of


def test_a_second_writer_is_refused(home: Home) -> None:
    listed = home.catalog.get("handbook")
    with (
        open_writer(listed, time.time),
        pytest.raises(WriterBusy, match=r"knowledge base handbook is in use by process \d+"),
        open_writer(listed, time.time),
    ):
        pass
    with open_writer(listed, time.time):
        pass


def test_a_writer_elsewhere_is_waited_for(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    kb = home.kb()
    home.write("a.md", "an okapi")
    with open_writer(home.catalog.get("handbook"), time.time) as writer:
        with home.following():
            pass
        assert "is in use by process" in caplog.text
        assert writer.store.generation() == 0
    with home.following():
        eventually(lambda: files_of(kb, "okapi") == ["a.md"])


@pytest.mark.parametrize("damage", ["missing", "torn", "behind", "ahead"])
def test_a_broken_lexical_index_is_built_again(
    home: Home, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = home.catalog.get("handbook").folder
    before = home.path / "before"
    home.write("a.md", "an okapi")
    home.sweep()
    lexical = home.lexical
    shutil.copytree(folder, before)
    home.write("b.md", "a bongo")
    home.sweep()
    if damage == "torn":
        for file in lexical.glob("*.term"):
            file.write_bytes(b"x")
    elif damage == "ahead":  # the database alone was brought back from yesterday
        for file in folder.glob("knowledge.db*"):
            file.unlink()
        shutil.copy(before / "knowledge.db", folder)
    else:
        shutil.rmtree(lexical)
        if damage == "behind":
            shutil.copytree(before / lexical.name, lexical)
    with caplog.at_level(logging.WARNING):
        home.sweep()
    assert ("built again" in caplog.text) == (damage in ("torn", "ahead"))
    for animal, name in {"okapi": "a.md", "bongo": "b.md"}.items():
        found = home.kb().search(animal, 5, mode="lexical")
        assert [hit.filename for hit in found.hits] == [name]


@pytest.fixture
def many(home: Home, monkeypatch: pytest.MonkeyPatch) -> Listed:
    """A knowledge base whose vectors are 16 MB, and whose index holds none of its passages."""
    monkeypatch.setattr("kb.rebuild.FAR", 100)
    monkeypatch.setattr("kb.rebuild.SLICE", 100)
    monkeypatch.setattr("kb.compact._PASSAGES", 100)
    listed = home.catalog.get("handbook")
    with open_writer(listed, time.time) as writer:
        for n in range(20):
            file = writer.ledger.changed("docs", f"{n}.md")
            pieces = [Piece(0, 0, f"okapi{n}x{i}") for i in range(100)]
            vectors = np.ones((100, 4096), np.float32)  # 8 KB each as they are kept
            writer.store.put_document(file.id, "", Parsed("", str(n)), pieces, vectors)
    return listed


@contextmanager
def little_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000, "all vectors are 16 MB"


def test_an_index_that_is_far_behind_is_built_in_little_memory(many: Listed) -> None:
    with little_memory(), open_writer(many, time.time) as writer:
        assert writer.lexical.generation == writer.store.generation()
        assert len(writer.lexical.ids()) == 2000


@pytest.mark.parametrize("damage", ["missing", "behind", "torn"])
def test_compaction_builds_an_index_that_is_of_no_use_in_little_memory(
    home: Home, many: Listed, damage: str
) -> None:
    if damage == "missing":
        shutil.rmtree(home.lexical)
    elif damage == "torn":
        (home.lexical / "meta.json").write_text("torn")
    with little_memory():
        compact(many, time.time)
    with open_writer(many, time.time) as writer:
        assert len(writer.lexical.ids()) == 2000
        (there,) = many.folder.glob("lexical*")
        assert there == lexical_of(writer.store)


def test_passages_stay_findable_by_words_after_a_retirement(home: Home) -> None:
    home.write("a.md", "an okapi")
    file = home.write("b.md", "an okapi too")
    home.sweep()
    file.unlink()
    home.sweep()
    kb = home.kb()
    assert FakeEmbedder().name == home.embedder.name
    assert [h.filename for h in kb.search("okapi", 5, mode="lexical").hits] == ["a.md"]
    assert kb.following.lexical.generation == kb.store.generation()
