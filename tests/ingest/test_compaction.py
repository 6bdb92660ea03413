"""Compaction beside other work: when it is due, and that it survives crashes and full disks."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ingest.compaction import Compactor
from ingest.settings import IngestSettings
from ingest.writer import Writer, open_writer
from kb.errors import StoreDown
from tests.ingest.homes import QUICK, Home, eventually, files_of
from tests.kb.bases import Clock

DAY = 86_400.0


@pytest.fixture
def clock() -> Clock:
    return Clock(1_800_000_000.0)


@pytest.fixture
def writer(home: Home, clock: Clock) -> Iterator[Writer]:
    """With a document that was replaced."""
    home.settings = QUICK.model_copy(update={"compact_seconds": 1e12})
    home.write("a.md", "an okapi")
    home.sweep()
    home.write("a.md", "a bongo, and more of it")
    home.sweep()
    with ExitStack() as stack:
        opened = stack.enter_context(open_writer(home.catalog.get("handbook"), clock))
        opened.store.set_meta("compacted_at", str(clock.now))
        yield opened


def compactor(writer: Writer, clock: Clock, settings: IngestSettings | None = None) -> Compactor:
    return Compactor(writer, settings or IngestSettings(), clock, lambda: False)


def finish(compactor: Compactor) -> int:
    """Steps until it has nothing to do."""
    steps = 0
    while compactor.step():
        steps += 1
    return steps


def dead(writer: Writer) -> int:
    return writer.store.counts()["dead_chunks"]


def test_one_dead_passage_leaves_the_disk_after_a_day(writer: Writer, clock: Clock) -> None:
    work = compactor(writer, clock)
    clock.now += DAY - 1
    assert finish(work) == 0 and dead(writer) == 1
    clock.now += 11
    assert finish(work) > 0 and dead(writer) == 0
    assert writer.lexical.generation == writer.store.generation()
    clock.now += 2 * DAY
    assert finish(work) == 0, "nothing is dead, so there is nothing to do"


def test_one_that_a_crash_interrupted_is_due_at_once(writer: Writer, clock: Clock) -> None:
    work = compactor(writer, clock, IngestSettings(compact_seconds=0))
    assert work.step() and work.step()  # and dies
    assert finish(compactor(writer, clock)) > 0
    assert finish(compactor(writer, clock)) == 0


def test_a_full_disk_puts_it_off(
    writer: Writer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    full = True

    class Full:
        """A lexical index whose disk is full."""

        def __getattr__(self, name: str) -> object:
            if full and name == "catch_up":
                raise StoreDown("no space left")
            return getattr(writer.lexical, name)

    shadow = Writer(writer.store, writer.ledger, Full())  # type: ignore[arg-type]
    work = compactor(shadow, clock, IngestSettings(compact_seconds=0))
    assert finish(work) == 0
    assert "compaction is put off: no space left" in caplog.text
    full = False
    assert finish(work) == 0, "not before it is tried again"
    clock.now += 301
    assert finish(work) > 0 and dead(writer) == 0


def test_the_running_service_compacts_and_its_readers_follow(home: Home) -> None:
    home.settings = QUICK.model_copy(update={"compact_seconds": 0})
    home.write("a.md", "an okapi")
    home.write("b.md", "a bongo")
    with home.following():
        kb = home.kb()
        eventually(lambda: files_of(kb, "okapi") == ["a.md"])
        (home.docs / "a.md").unlink()
        eventually(lambda: files_of(kb, "okapi") == [])
        eventually(lambda: b"okapi" not in on_disk(kb.store.file.parent), 30)
        assert files_of(kb, "bongo") == ["b.md"]


def on_disk(folder: Path) -> bytes:
    files = [file for file in folder.rglob("*") if file.is_file()]
    out = b""
    for file in files:
        try:
            out += file.read_bytes()
        except FileNotFoundError:  # an old segment, gone meanwhile
            continue
    return out
