"""What happened while nobody watched is found by comparing the folder with the ledger."""

import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingest.doubts import doubt
from ingest.events import FileEvent
from ingest.presence import Presence
from ingest.settings import IngestSettings
from ingest.sweep import Sweeper
from ingest.writer import open_writer
from kb.embedding import FakeEmbedder
from kb.ledger import Ledger
from kb.records import Parsed
from kb.search import KnowledgeBase
from kb.store import Store
from tests.ingest.documents import PNG
from tests.ingest.homes import Home, files_of, states
from tests.ingest.test_scans import needs_ocr, photo, scan


class CountingEmbedder(FakeEmbedder):
    """Counts passages."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def passages(self, texts):  # type: ignore[no-untyped-def]
        self.count += len(texts)
        return super().passages(texts)


def test_changes_during_downtime_are_healed(home: Home) -> None:
    for name, animal in {"stays.md": "zebra", "edited.md": "ibex", "gone.md": "lynx"}.items():
        home.write(name, f"a {animal}")
    home.sweep()
    kb = home.kb()
    home.write("edited.md", "a markhor now")
    home.write("new.md", "an okapi")
    (home.docs / "gone.md").unlink()
    home.sweep()
    assert set(states(kb)) == {"stays.md", "edited.md", "new.md"}
    assert set(states(kb).values()) == {"completed"}
    for animal, names in {
        "zebra": ["stays.md"],
        "ibex": [],
        "lynx": [],
        "okapi": ["new.md"],
    }.items():
        assert files_of(kb, animal) == names
    assert files_of(kb, "markhor") == ["edited.md"]


def test_what_only_moved_is_not_read_or_embedded_again(home: Home) -> None:
    embedder = CountingEmbedder()
    home.write("old/a.md", "# Rule\nan okapi")
    home.write("old/b.md", "# Rule\na bongo")
    home.sweep(embedder=embedder)
    kb = home.kb()
    ids = {file.id for file in kb.ledger.all()}
    assert embedder.count == 2
    (home.docs / "old").rename(home.docs / "new")
    home.sweep(embedder=embedder)
    assert {file.id for file in kb.ledger.all()} == ids
    assert files_of(kb, "okapi") == ["new/a.md"]
    assert embedder.count == 2


def test_a_touched_file_is_not_embedded_again(home: Home) -> None:
    embedder = CountingEmbedder()
    file = home.write("a.md", "an okapi")
    home.sweep(embedder=embedder)
    os.utime(file, (1, 1))
    home.sweep(embedder=embedder)
    assert states(home.kb()) == {"a.md": "completed"}
    assert embedder.count == 1


def test_nothing_is_deleted_while_the_folder_is_missing(home: Home) -> None:
    home.write("a.md", "an okapi")
    home.sweep()
    shutil.rmtree(home.docs)
    home.sweep()
    assert files_of(home.kb(), "okapi") == ["a.md"]


def test_an_empty_folder_on_another_device_is_an_unmounted_one(home: Home) -> None:
    file = home.write("a.md", "an okapi")
    home.sweep()
    store = Store(home.catalog.get("handbook").folder / "knowledge.db")
    store.set_meta(f"device {home.docs}", "another")
    file.unlink()
    home.sweep()
    assert files_of(home.kb(), "okapi") == ["a.md"]
    # Once it holds something again, it is believed.
    home.write("b.md", "a bongo")
    home.sweep()
    assert set(states(home.kb())) == {"b.md"}
    store.close()


def test_what_people_leave_in_a_mount_point_does_not_make_it_a_mounted_disk(home: Home) -> None:
    file = home.write("deep/a.md", "an okapi")
    home.sweep()
    store = Store(home.catalog.get("handbook").folder / "knowledge.db")
    store.set_meta(f"device {home.docs}", "another")
    file.unlink()
    for left in (".gitkeep", ".NOT_MOUNTED", ".Trash-0/x.md", "a.md~"):
        home.write(left, "nobody's document")
    home.write("NOT_MOUNTED", "")
    home.sweep()
    assert states(home.kb()) == {"deep/a.md": "completed"}
    # Nor is one event believed, or a file that was already on its way.
    Ledger(store).changed(str(home.docs), "deep/a.md")
    home.sweep()
    assert files_of(home.kb(), "okapi") == ["deep/a.md"]
    store.close()


def test_a_folder_that_a_person_emptied_is_empty(home: Home) -> None:
    home.write("a.md", "an okapi").unlink()
    home.write("b.md", "a bongo")
    home.sweep()
    (home.docs / "b.md").unlink()
    home.sweep()
    assert states(home.kb()) == {}


def test_what_failed_is_tried_again_when_other_means_of_reading_are_there(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESSDATA_PREFIX", str(tmp_path))
    home.settings = home.settings.model_copy(update={"max_file_mb": 1})
    (home.docs / "a.png").write_bytes(PNG)
    home.write("b.txt", "an okapi" + " " * 2**20)
    kb = home.kb()
    home.sweep()
    first = kb.ledger.all()
    assert {file.error_code for file in first} == {"unsupported_type", "too_large"}
    home.sweep()
    assert kb.ledger.all() == first
    (tmp_path / "eng.traineddata").touch()  # OCR is installed, after a fashion
    home.sweep()
    (image,) = (file for file in kb.ledger.all() if file.path == "a.png")
    assert image.error_code != "unsupported_type"
    home.settings = home.settings.model_copy(update={"max_file_mb": 2})
    home.sweep()
    assert states(kb)["b.txt"] == "completed"


@needs_ocr
def test_pages_that_were_images_are_read_when_ocr_has_come(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESSDATA_PREFIX", str(tmp_path))  # no languages
    (home.docs / "scan.pdf").write_bytes(scan("A written page about bongos.", photo()))
    (home.docs / "written.pdf").write_bytes(scan("A written page about ibexes.", "And one more."))
    kb = home.kb()
    home.sweep()
    assert states(kb) == {"scan.pdf": "completed", "written.pdf": "completed"}
    assert files_of(kb, "okapi") == []
    monkeypatch.delenv("TESSDATA_PREFIX")
    before = {name: document(kb, name) for name in states(kb)}
    home.sweep()
    assert files_of(kb, "okapi") == files_of(kb, "bongos") == ["scan.pdf"]
    after = {name: document(kb, name) for name in states(kb)}
    assert [name for name in after if after[name] != before[name]] == ["scan.pdf"]
    # And not again at each start, nor when OCR has gone: what it read stays.
    for folder in (None, str(tmp_path)):
        if folder:
            monkeypatch.setenv("TESSDATA_PREFIX", folder)
        home.sweep()
        assert {name: document(kb, name) for name in states(kb)} == after
    assert files_of(kb, "okapi") == ["scan.pdf"]


def test_only_a_new_language_of_ocr_casts_doubt_on_pages_without_letters(
    home: Home, tmp_path: Path
) -> None:
    environ = {"TESSDATA_PREFIX": str(tmp_path)}
    with open_writer(home.catalog.get("handbook"), time.time) as writer:
        store, ledger = writer.store, writer.ledger
        for name, text, pages in (
            ("scan.pdf", "A written page.\n\n83", (0, 17, 19)),
            ("written.pdf", "A written page.\n\nAnd another.", (0, 17)),
            ("a.md", "83", ()),
        ):
            file = ledger.changed("docs", name)
            store.put_document(file.id, name, Parsed(text, pages=pages), [], np.empty((0, 64)))
            ledger.completed(file, size=1, mtime_ns=1)
        known = ledger.all()

        def doubted(**other: Any) -> list[str]:
            doubt(store, ledger, IngestSettings(**other), environ)
            names = [file.path for file in ledger.all() if not file.mtime_ns]
            for file in known:
                row = ledger.changed(file.folder, file.path)
                ledger.completed(row, size=1, mtime_ns=1)
            return names

        assert doubted() == []
        (tmp_path / "eng.traineddata").touch()
        assert doubted() == ["scan.pdf"]
        assert doubted() == []
        assert doubted(parse_seconds=5) == doubted(ocr=False) == []
        assert doubted() == ["scan.pdf"]
        (tmp_path / "chi_sim.traineddata").touch()
        assert doubted() == ["scan.pdf"]
        assert doubted(ocr_languages="eng") == []


def document(kb: KnowledgeBase, name: str) -> int:
    """The number of a file's document, another whenever it was read again."""
    (file,) = (file for file in kb.ledger.all() if file.path == name)
    found = kb.store.document(file.id)
    assert found is not None
    return found.id


def test_work_in_progress_is_not_reported_twice(home: Home) -> None:
    home.write("a.md", "an okapi")
    store = Store(home.catalog.get("handbook").folder / "knowledge.db")
    sweeper = Sweeper(Ledger(store), Presence(store))
    assert sweeper.sweep(home.docs) == [FileEvent("changed", str(home.docs), "a.md")]
    Ledger(store).changed(str(home.docs), "a.md")
    assert sweeper.sweep(home.docs) == []
    store.close()


def test_names_that_are_no_text_are_left_out(home: Home) -> None:
    bad = os.fsencode(home.docs) + b"/\xb2\xe2\xca\xd4.md"
    Path(os.fsdecode(bad)).write_text("gb18030 in the name")
    home.write("测试.md", "an okapi")
    home.sweep()
    assert states(home.kb()) == {"测试.md": "completed"}


def test_a_stopped_pass_ends(home: Home) -> None:
    home.write("a.md", "an okapi")
    worker = home.worker()
    worker.stop()
    thread = threading.Thread(target=worker.complete)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
