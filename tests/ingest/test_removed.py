"""A knowledge base that is removed is gone, whoever still writes it; another of its name is new."""

import time
from contextlib import suppress

import pytest

from ingest.writer import open_writer
from kb.catalog import Listed
from kb.compact import compact
from kb.embedders import Embedders
from kb.errors import StoreBroken, StoreDown, UnknownKnowledgeBase
from kb.lexical import LexicalIndex
from kb.rebuild import renew
from kb.remake import wanted
from kb.renewal import rebuild
from kb.settings import KbSettings
from kb.verify import verify
from tests.ingest.homes import Home, eventually, files_of


def again(home: Home) -> Listed:
    """`handbook` removed and made anew, of other files."""
    home.catalog.remove("handbook")
    (home.path / "others").mkdir()
    (home.path / "others" / "b.md").write_text("a bongo")
    return home.catalog.add("handbook", home.embedder.name, 2, home.path / "others")


@pytest.mark.parametrize("write", ["publish", "renew"])
def test_a_writer_of_a_removed_one_writes_nothing_into_another_of_its_name(
    home: Home, write: str
) -> None:
    home.write("a.md", "an okapi")
    with open_writer(home.catalog.get("handbook"), time.time) as writer:
        new = again(home)
        home.sweep()
        writer.store.touch()
        with suppress(StoreDown, StoreBroken):
            writer.publish() if write == "publish" else renew(writer.store)
    assert verify(new, 64) == []
    found = home.kb().search("bongo okapi", 5, mode="lexical").hits
    assert [hit.chunk.text for hit in found] == ["a bongo"]


def test_one_that_is_followed_is_replaced_by_another_of_its_name(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    with home.following():
        home.write("a.md", "an okapi")
        old = home.kb()
        eventually(lambda: files_of(old, "okapi") == ["a.md"])
        new = again(home)
        home.write("a.md", "another okapi")
        kb = home.kb()
        eventually(lambda: files_of(kb, "bongo") == ["b.md"])
        eventually(lambda: verify(new, 64) == [])
        assert files_of(kb, "okapi") == []
    assert "ERROR" not in caplog.text and "Traceback" not in caplog.text


def test_opening_one_that_was_removed_does_not_bring_it_back(home: Home) -> None:
    old = home.catalog.get("handbook")
    home.catalog.remove("handbook")
    today = wanted(home.embedder.name, home.kb_settings)
    others = Embedders(KbSettings(embedder="fake:64"), home.path)
    for work in (
        lambda: open_writer(old, time.time).__enter__(),
        lambda: rebuild(old, today, others),
        lambda: compact(old, time.time),
        lambda: home.worker_of(old).run(),
    ):
        with pytest.raises(UnknownKnowledgeBase, match="handbook was removed"):
            work()
    assert not old.folder.exists()
    assert home.catalog.add("handbook", home.embedder.name, 2).id != old.id


def test_whoever_means_the_removed_one_does_not_write_another_of_its_name(home: Home) -> None:
    old = home.catalog.get("handbook")
    new = again(home)
    with pytest.raises(UnknownKnowledgeBase, match="handbook was removed"):
        home.worker_of(old).complete()
    assert home.catalog.all() == [new]


@pytest.mark.parametrize("readonly", [True, False])
def test_an_index_of_one_that_was_removed_does_not_bring_it_back(
    home: Home, readonly: bool
) -> None:
    folder = home.catalog.remove("handbook").folder
    with pytest.raises(StoreBroken, match="cannot be opened"):
        LexicalIndex(folder / "lexical", readonly=readonly)
    assert not folder.exists()
