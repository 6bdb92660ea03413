"""SQLite is the one truth: generations, lives of chunks, and what an index must take over."""

import random
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from kb import migrations
from kb.errors import StoreBroken
from kb.feed import Feed
from kb.ledger import Ledger
from kb.records import Parsed, Piece
from kb.store import Store, context, to_embed
from tests.kb.bases import cut, unit

DIMENSIONS = 8


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "knowledge.db"


@pytest.fixture
def store(file: Path) -> Iterator[Store]:
    opened = Store(file, create=True)
    yield opened
    opened.close()


def put(store: Store, file_id: str, text: str, title: str = "") -> int:
    """A document with one chunk a word; its file gets a row of the ledger for its name."""
    pieces = cut(text)
    vectors = unit(np.random.default_rng(len(text)), len(pieces), DIMENSIONS)
    with store.transaction() as db:
        db.execute(
            "INSERT OR IGNORE INTO files (id, folder, path, status, due_at, created_at, changed_at)"
            " VALUES (?, '/f', ?, 'completed', 0, 0, 0)",
            (file_id, f"{file_id}.md"),
        )
    return store.put_document(file_id, f"sha-{text}", Parsed(text, title, (0, 4)), pieces, vectors)


def living(store: Store) -> dict[int, str]:
    rows = store.rows("SELECT id, text FROM chunks WHERE dead_seq IS NULL")
    return {row["id"]: row["text"] for row in rows}


def test_a_new_store_is_at_generation_zero_and_empty(store: Store) -> None:
    assert store.generation() == 0
    assert store.counts() == {"documents": 0, "chunks": 0, "dead_chunks": 0}
    assert Feed(store).changes(0).added == ()


def test_every_change_moves_the_generation_by_one(store: Store) -> None:
    assert [put(store, "a", "one"), put(store, "b", "two"), put(store, "a", "three")] == [1, 2, 3]
    assert store.retire("a") == 4
    assert store.touch() == 5
    assert store.generation() == 5


def test_retiring_what_is_not_there_moves_nothing(store: Store) -> None:
    put(store, "a", "one")
    assert store.retire("never seen") == 1
    store.retire("a")
    assert store.retire("a") == store.generation() == 2


def test_a_replaced_document_has_only_its_new_chunks(store: Store) -> None:
    put(store, "a", "old words here")
    put(store, "b", "other")
    put(store, "a", "new text")
    assert sorted(living(store).values()) == ["new", "other", "text"]
    document = store.document("a")
    assert document is not None and document.text == "new text"
    assert store.counts() == {"documents": 2, "chunks": 3, "dead_chunks": 3}


def test_a_retired_document_is_gone_and_a_second_life_is_new(store: Store) -> None:
    put(store, "a", "one two")
    before = set(living(store))
    store.retire("a")
    assert store.document("a") is None
    assert store.live(list(before)) == {}
    put(store, "a", "one two")
    assert before.isdisjoint(living(store)), "an id of a dead chunk must never come back"


def test_a_document_comes_back_as_it_was_put(store: Store) -> None:
    put(store, "a", "one two", title="Title")
    document = store.document("a")
    assert document is not None
    assert (document.title, document.filename, document.sha256) == ("Title", "a.md", "sha-one two")
    assert document.pages == (0, 4)
    assert [document.page_at(i) for i in (0, 3, 4, 6)] == [1, 1, 2, 2]


def test_a_live_row_carries_names_and_place(store: Store) -> None:
    put(store, "a", "one two", title="Title")
    (first, second) = store.live(list(living(store))).values()
    assert (first["title"], first["path"], first["start"], first["end"]) == ("Title", "a.md", 0, 3)
    assert "one two"[second["start"] : second["end"]] == second["text"]


def test_vectors_come_back_as_the_float16_they_are_kept_in(store: Store) -> None:
    vectors = unit(np.random.default_rng(1), 3, 384)
    store.put_document("a", "", Parsed("a b c"), cut("a b c"), vectors)
    codes = b"".join(e.vector for e in Feed(store).changes(0).added)
    kept = np.frombuffer(codes, np.float16).reshape(3, 384)
    assert np.array_equal(kept, vectors.astype(np.float16))


def test_fewer_vectors_than_pieces_change_nothing(store: Store) -> None:
    put(store, "a", "old")
    with pytest.raises(ValueError, match="zip"):
        store.put_document(
            "a", "", Parsed("x y"), cut("x y"), np.zeros((1, DIMENSIONS), np.float32)
        )
    assert (store.generation(), list(living(store).values())) == (1, ["old"])


def test_an_index_learns_title_and_heading_as_context(store: Store) -> None:
    piece = Piece(0, 1, "x", "A > B")
    store.put_document("a", "", Parsed("x", "Title"), [piece], np.ones((1, DIMENSIONS), np.float32))
    assert Feed(store).changes(0).added[0].context == "Title > A > B" == context("Title", "A > B")
    assert context("", "A") == "A"


@pytest.mark.parametrize(("title", "heading"), [(9, 9), (199, 0), (0, 200), (100, 97), (20, 177)])
def test_a_context_of_ordinary_length_is_whole(title: int, heading: int) -> None:
    assert context("t" * title, "h" * heading).count("t") == title
    assert context("t" * title, "h" * heading).count("h") == heading


@pytest.mark.parametrize(
    ("title", "heading"), [(9999, 0), (0, 9999), (9999, 9999), (9999, 9), (9, 9999), (150, 150)]
)
def test_a_long_title_or_heading_leaves_room_for_the_text(title: int, heading: int) -> None:
    """An embedder reads some hundred words and no more."""
    told = context("t" * title, "h" * heading)
    assert len(told) <= 203 and len(to_embed("t" * title, "h" * heading, "the text")) < 220
    # Neither pushes the other out.
    assert told.count("t") >= min(title, 100) and told.count("h") >= min(heading, 97)


def test_of_a_long_path_of_headings_those_nearest_to_the_text_are_kept() -> None:
    path = " > ".join(f"Part {n} of the handbook" for n in range(40))
    assert context("Handbook", path).startswith("Handbook > ")
    assert context("Handbook", path).endswith("> Part 38 of the handbook > Part 39 of the handbook")


@pytest.mark.parametrize("seed", range(25))
def test_changes_since_any_generation_equal_a_replay(store: Store, seed: int) -> None:
    """Indexes that catch up at random moments hold exactly the living chunks, each once."""
    rng = random.Random(seed)
    mirrors: list[tuple[int, dict[int, str]]] = [(0, {})]
    for step in range(40):
        file_id = rng.choice("abcde")
        match rng.randrange(4):
            case 0 | 1:
                put(store, file_id, " ".join(f"w{step}.{i}" for i in range(rng.randrange(4))))
            case 2:
                store.retire(file_id)
            case _:
                store.touch()
        if rng.random() < 0.3:
            mirrors.append(mirrors[rng.randrange(len(mirrors))])  # one that will lag behind
        if rng.random() < 0.5:
            which = rng.randrange(len(mirrors))
            mirrors[which] = caught_up(store, *mirrors[which])
            assert mirrors[which][1] == living(store)
    for since, held in mirrors:
        assert caught_up(store, since, held) == (store.generation(), living(store))


def caught_up(store: Store, since: int, held: dict[int, str]) -> tuple[int, dict[int, str]]:
    changes = Feed(store).changes(since)
    assert set(changes.removed) <= set(held), "told to forget what it never had"
    kept = {i: text for i, text in held.items() if i not in changes.removed}
    fresh = {e.id: e.text for e in changes.added}
    assert len(fresh) == len(changes.added)
    assert kept.keys().isdisjoint(fresh), "a chunk would be held twice"
    return changes.generation, kept | fresh


def test_what_came_and_went_since_appears_nowhere(store: Store) -> None:
    put(store, "a", "one")
    put(store, "b", "two")
    store.retire("b")
    changes = Feed(store).changes(1)
    assert (changes.generation, changes.added, changes.removed) == (3, (), ())


def test_nested_transactions_roll_back_as_one(store: Store) -> None:
    with pytest.raises(RuntimeError, match="halt"), store.transaction():
        put(store, "a", "one")
        with store.transaction():
            store.set_meta("key", "value")
        raise RuntimeError("halt")
    assert (store.generation(), store.meta("key"), living(store)) == (0, None, {})


def test_an_inner_failure_undoes_the_outer_transaction(store: Store) -> None:
    with pytest.raises(RuntimeError), store.transaction():
        store.set_meta("key", "value")
        with store.transaction():
            raise RuntimeError
    assert store.meta("key") is None


def test_a_commit_that_fails_leaves_no_transaction_open(store: Store) -> None:
    orphan = (
        'INSERT INTO chunks (document_id, start, "end", heading, text, vector, seq)'
        " VALUES (99, 0, 0, '', '', x'00', 1)"
    )
    with pytest.raises(sqlite3.IntegrityError), store.transaction() as db:
        db.execute("PRAGMA defer_foreign_keys = ON")
        db.execute(orphan)
    store.set_meta("after", "kept")
    reader = Store(store.file, readonly=True)
    assert reader.meta("after") == "kept", "a later transaction joined the one that failed"
    reader.close()


def test_the_cause_is_told_when_sqlite_has_rolled_back_by_itself(store: Store) -> None:
    with pytest.raises(RuntimeError, match="disk full"), store.transaction() as db:
        db.execute("ROLLBACK")
        raise RuntimeError("disk full")


def test_a_reader_in_another_connection_sees_a_commit_at_once(store: Store) -> None:
    reader = Store(store.file, readonly=True)
    for n in range(1, 6):
        put(store, "a", f"text {n}")
        assert reader.generation() == n
        document = reader.document("a")
        assert document is not None and document.text == f"text {n}"
    reader.close()


def test_a_reader_never_sees_half_a_transaction(store: Store) -> None:
    reader = Store(store.file, readonly=True)
    with store.transaction():
        put(store, "a", "one")
        assert (reader.generation(), reader.document("a")) == (0, None)
    assert reader.generation() == 1
    reader.close()


def test_threads_share_a_store_without_losing_a_generation(store: Store) -> None:
    def work(name: str) -> None:
        for n in range(20):
            put(store, name, f"{name} {n}")

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.generation() == 80
    assert sorted(living(store).values()) == sorted(["a", "b", "c", "d", *["19"] * 4])


def test_a_reader_refuses_to_write(store: Store) -> None:
    reader = Store(store.file, readonly=True)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        put(reader, "a", "one")
    reader.close()
    assert store.generation() == 0


@pytest.mark.parametrize("readonly", [False, True])
def test_a_missing_database_is_made_only_by_whoever_says_so(file: Path, readonly: bool) -> None:
    with pytest.raises(StoreBroken, match=r"knowledge\.db does not exist"):
        Store(file, readonly=readonly)
    assert not file.exists()


def test_migrating_again_changes_nothing(store: Store, file: Path) -> None:
    put(store, "a", "one")
    shape = store.rows("SELECT * FROM sqlite_master")
    applied = store.rows("SELECT * FROM migrations")
    again = Store(file)
    assert again.rows("SELECT * FROM sqlite_master") == shape
    assert again.rows("SELECT * FROM migrations") == applied
    assert list(living(again).values()) == ["one"]
    again.close()


@pytest.mark.parametrize("readonly", [False, True])
def test_a_newer_database_is_refused(file: Path, readonly: bool) -> None:
    store = Store(file, create=True)
    with store.transaction() as db:
        db.execute("INSERT INTO migrations VALUES (?, 0)", (len(migrations.STEPS) + 1,))
    store.close()
    with pytest.raises(StoreBroken, match="newer Vademecum"):
        Store(file, readonly=readonly)


def test_a_reader_refuses_a_database_that_was_not_brought_up_to_date(file: Path) -> None:
    store = Store(file, create=True)
    with store.transaction() as db:
        db.execute("DELETE FROM migrations")
    store.close()
    with pytest.raises(StoreBroken, match="older shape"):
        Store(file, readonly=True)


@pytest.mark.parametrize("content", [b"garbage " * 1000, b"SQLite format 3\0" + b"\xff" * 4096])
@pytest.mark.parametrize("readonly", [False, True])
def test_a_file_that_is_no_database_is_refused(file: Path, content: bytes, readonly: bool) -> None:
    file.write_bytes(content)
    with pytest.raises(StoreBroken, match=r"knowledge\.db is damaged"):
        Store(file, readonly=readonly)
    assert file.read_bytes() == content


def test_an_empty_file_is_no_knowledge_base_to_a_reader(file: Path) -> None:
    file.write_bytes(b"")
    with pytest.raises(StoreBroken):
        Store(file, readonly=True)


def test_a_database_of_the_first_shape_is_brought_up_to_date_and_keeps_its_files(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = migrations.STEPS
    monkeypatch.setattr(migrations, "STEPS", steps[:1])
    store = Store(file, create=True)
    with store.transaction() as db:
        db.execute(
            "INSERT INTO files (id, folder, path, status, due_at, created_at, changed_at)"
            " VALUES ('file-1', '/docs', 'a.md', 'in_progress', 1, 1, 1)"
        )
    store.close()
    monkeypatch.setattr(migrations, "STEPS", steps)
    store = Store(file)
    (found,) = Ledger(store).all()
    assert (found.id, found.status, found.bulk, found.closed) == (
        "file-1",
        "in_progress",
        False,
        False,
    )
    store.close()
