"""The ledger is the queue of work: guarded against stale results, and dying with its documents."""

import numpy as np
import pytest

from kb.feed import Feed
from kb.ledger import File, Ledger
from kb.records import Parsed
from kb.store import Store
from tests.kb.bases import FOLDER, Base, Clock, cut


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(base: Base) -> Store:
    return base.store


@pytest.fixture
def ledger(base: Base, clock: Clock) -> Ledger:
    return Ledger(base.store, clock)


def again(ledger: Ledger, file: File) -> File:
    found = ledger.get(file.id)
    assert found is not None
    return found


def known(store: Store, file: File, text: str = "one two") -> int:
    pieces = cut(text)
    return store.put_document(
        file.id, "", Parsed(text), pieces, np.ones((len(pieces), 4), np.float32)
    )


def test_a_change_makes_work_that_survives_reopening(base: Base, ledger: Ledger) -> None:
    file = ledger.changed(FOLDER, "a.md")
    reopened = Store(base.store.file)
    assert [f.id for f in Ledger(reopened).due(10)] == [file.id]
    reopened.close()


def test_a_change_of_a_known_file_resets_it_and_keeps_its_id(ledger: Ledger, clock: Clock) -> None:
    file = ledger.changed(FOLDER, "a.md")
    ledger.retry(file, "down", "later", delay=5)
    ledger.failed(again(ledger, file), "corrupt", "cannot be read", size=1, mtime_ns=2)
    clock.now += 10
    changed = ledger.changed(FOLDER, "a.md", delay=3)
    assert (changed.id, changed.created_at) == (file.id, file.created_at)
    assert (changed.status, changed.attempts) == ("in_progress", 0)
    assert (changed.error_code, changed.error_message) == (None, None)
    assert (changed.changed_at, changed.due_at) == (clock.now, clock.now + 3)


def test_a_finished_file_says_what_was_read(ledger: Ledger) -> None:
    file = ledger.changed(FOLDER, "a.md")
    ledger.completed(file, size=12, mtime_ns=34)
    done = again(ledger, file)
    assert (done.status, done.size, done.mtime_ns, done.error_code) == ("completed", 12, 34, None)
    assert ledger.due(10) == []
    assert ledger.next_due() is None


def test_a_failed_file_says_why(ledger: Ledger) -> None:
    file = ledger.changed(FOLDER, "a.md")
    ledger.failed(file, "encrypted", "needs a password", size=1, mtime_ns=2)
    found = again(ledger, file)
    assert (found.status, found.error_code, found.error_message) == (
        "failed",
        "encrypted",
        "needs a password",
    )


@pytest.mark.parametrize("ending", ["completed", "failed", "retry"])
def test_a_result_of_an_older_version_is_ignored(ledger: Ledger, clock: Clock, ending: str) -> None:
    old = ledger.changed(FOLDER, "a.md")
    clock.now += 1
    new = ledger.changed(FOLDER, "a.md")
    match ending:
        case "completed":
            ledger.completed(old, size=1, mtime_ns=1)
        case "failed":
            ledger.failed(old, "corrupt", "bad", size=1, mtime_ns=1)
        case _:
            ledger.retry(old, "down", "later", delay=60)
    assert again(ledger, old) == new


def test_the_most_recent_change_is_due_first(ledger: Ledger, clock: Clock) -> None:
    for name in "abc":
        ledger.changed(FOLDER, name)
        clock.now += 1
    ledger.changed(FOLDER, "a")
    assert [f.path for f in ledger.due(10)] == ["a", "c", "b"]
    assert [f.path for f in ledger.due(2)] == ["a", "c"]


def test_work_is_due_after_its_delay(ledger: Ledger, clock: Clock) -> None:
    ledger.changed(FOLDER, "a", delay=5)
    assert ledger.due(10) == []
    assert ledger.next_due() == clock.now + 5
    clock.now += 5
    assert [f.path for f in ledger.due(10)] == ["a"]


def test_a_retry_waits_counts_and_shows_its_reason(ledger: Ledger, clock: Clock) -> None:
    file = ledger.changed(FOLDER, "a")
    ledger.retry(file, "embedder_down", "no answer", delay=8)
    waiting = again(ledger, file)
    assert (waiting.status, waiting.attempts, waiting.error_code) == (
        "in_progress",
        1,
        "embedder_down",
    )
    assert ledger.due(10) == []
    clock.now += 8
    assert ledger.due(10) == [waiting]
    ledger.retry(waiting, "busy", "somebody writes", delay=1, counted=False)
    assert again(ledger, file).attempts == 1


def test_a_renamed_file_keeps_its_document(ledger: Ledger, store: Store) -> None:
    file = ledger.changed(FOLDER, "a.md")
    generation = known(store, file)
    ledger.renamed(file, "/other", "b.md")
    assert ledger.find(FOLDER, "a.md") is None
    moved = ledger.find("/other", "b.md")
    document = store.document(file.id)
    assert moved is not None and document is not None
    assert (moved.id, document.filename) == (file.id, "b.md")
    assert store.generation() == generation + 1, "readers must learn the new name"


def test_renaming_over_a_file_forgets_that_one_and_its_document(
    ledger: Ledger, store: Store
) -> None:
    kept, lost = ledger.changed(FOLDER, "kept"), ledger.changed(FOLDER, "lost")
    known(store, kept, "kept text")
    known(store, lost, "lost text")
    ledger.renamed(kept, FOLDER, "lost")
    assert ledger.get(lost.id) is None
    assert store.document(lost.id) is None
    document = store.document(kept.id)
    assert document is not None and document.text == "kept text"
    assert [f.id for f in ledger.all()] == [kept.id]


def test_renaming_onto_itself_forgets_nothing(ledger: Ledger, store: Store) -> None:
    file = ledger.changed(FOLDER, "a")
    known(store, file)
    ledger.renamed(file, FOLDER, "a")
    assert store.document(file.id) is not None


@pytest.mark.parametrize(("reread", "expected"), [(True, 0), (False, 34)])
def test_a_renamed_file_is_read_again_only_when_asked(
    ledger: Ledger, reread: bool, expected: int
) -> None:
    file = ledger.changed(FOLDER, "a")
    ledger.completed(file, size=12, mtime_ns=34)
    ledger.renamed(file, FOLDER, "b", reread=reread)
    assert again(ledger, file).mtime_ns == expected


def test_a_forgotten_file_takes_its_document_with_it(ledger: Ledger, store: Store) -> None:
    file = ledger.changed(FOLDER, "a")
    known(store, file)
    ledger.forget(file)
    assert ledger.get(file.id) is None
    assert store.document(file.id) is None
    assert len(Feed(store).changes(1).removed) == 2


def test_forgetting_is_undone_whole(ledger: Ledger, store: Store) -> None:
    file = ledger.changed(FOLDER, "a")
    known(store, file)
    with pytest.raises(RuntimeError), store.transaction():
        ledger.forget(file)
        raise RuntimeError
    assert ledger.get(file.id) is not None
    assert store.document(file.id) is not None


def test_a_file_that_comes_back_is_a_new_one(ledger: Ledger) -> None:
    file = ledger.changed(FOLDER, "a")
    ledger.forget(file)
    assert ledger.changed(FOLDER, "a").id != file.id


def test_an_upload_may_bring_its_id(ledger: Ledger) -> None:
    wanted = "file-" + "0" * 24
    assert ledger.changed(FOLDER, "a", file_id=wanted).id == wanted


def test_files_are_listed_oldest_first_and_by_folder(ledger: Ledger, clock: Clock) -> None:
    for folder, path in ((FOLDER, "b"), ("/other", "c"), (FOLDER, "a")):
        ledger.changed(folder, path)
        clock.now += 1
    assert [f.path for f in ledger.all()] == ["b", "c", "a"]
    assert [f.path for f in ledger.all(FOLDER)] == ["b", "a"]
    assert ledger.all("/nowhere") == []


def test_files_are_counted_by_status(ledger: Ledger) -> None:
    for name in "abc":
        file = ledger.changed(FOLDER, name)
    ledger.completed(file, size=1, mtime_ns=1)
    assert ledger.counts() == {"completed": 1, "in_progress": 2}


def test_a_folder_is_followed_once(ledger: Ledger) -> None:
    for path in ("/b", "/a", "/b"):
        ledger.add_folder(path)
    assert ledger.folders() == ["/a", "/b"]


@pytest.mark.parametrize("step", [0.0, -60.0])
def test_changes_in_one_tick_or_around_a_clock_set_back_are_told_apart(
    ledger: Ledger, clock: Clock, step: float
) -> None:
    clock.now = 1_800_000_000.0
    first = ledger.changed(FOLDER, "a.md")
    clock.now += step
    second = ledger.changed(FOLDER, "a.md")
    third = ledger.changed(FOLDER, "a.md")
    assert first.changed_at < second.changed_at < third.changed_at
    ledger.completed(second, size=1, mtime_ns=1)
    assert again(ledger, first).status == "in_progress"
    ledger.completed(third, size=1, mtime_ns=1)
    assert again(ledger, first).status == "completed"


def test_what_came_in_bulk_waits_for_what_came_alone(ledger: Ledger, clock: Clock) -> None:
    for name, bulk in (("old", False), ("new", False), ("load 1", True), ("load 2", True)):
        ledger.changed(FOLDER, name, bulk=bulk)
        clock.now += 1
    assert [f.path for f in ledger.due(10)] == ["new", "old", "load 2", "load 1"]
    assert [f.path for f in ledger.due(10, bulk=False)] == ["new", "old"]
    assert [f.path for f in ledger.due(1, bulk=True)] == ["load 2"]
    # The lane is that of the last change.
    ledger.changed(FOLDER, "load 1")
    assert [f.path for f in ledger.due(2)] == ["load 1", "new"]


def test_a_change_has_the_time_when_it_was_seen(ledger: Ledger, clock: Clock) -> None:
    file = ledger.changed(FOLDER, "a", at=clock.now - 5, delay=2, closed=True)
    assert (file.changed_at, file.due_at, file.closed) == (clock.now - 5, clock.now - 3, True)


def test_the_next_to_fall_due_is_one_that_is_not_due_yet(ledger: Ledger, clock: Clock) -> None:
    ledger.changed(FOLDER, "a")
    assert ledger.next_due() is None
    ledger.changed(FOLDER, "b", delay=5)
    assert ledger.next_due() == clock.now + 5


def test_only_versions_that_are_waited_for_are_wanted(ledger: Ledger, clock: Clock) -> None:
    stays, done, edited = (ledger.changed(FOLDER, name) for name in "abc")
    ledger.completed(done, size=1, mtime_ns=1)
    clock.now += 1
    ledger.changed(FOLDER, "c")
    assert ledger.wanted([stays, done, edited]) == {stays.id}
    assert ledger.wanted([]) == set()


def test_a_clock_that_was_ahead_keeps_no_file_waiting(ledger: Ledger, clock: Clock) -> None:
    clock.now += 1e6
    ledger.changed(FOLDER, "a", delay=1)
    clock.now -= 1e6
    assert ledger.next_due() == clock.now + 1e6 + 1
    ledger.hasten(60)
    assert ledger.next_due() == clock.now + 60


def test_all_that_waits_is_known(ledger: Ledger) -> None:
    ledger.changed("/b", "x")
    ledger.changed("/a", "x")
    ledger.completed(ledger.changed("/c", "x"), size=1, mtime_ns=1)
    assert {(f.folder, f.path) for f in ledger.waiting()} == {("/a", "x"), ("/b", "x")}
