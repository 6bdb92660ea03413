"""Knowledge bases are made whole, found by name or id, and removed without touching others."""

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from kb import migrations
from kb.catalog import Catalog
from kb.errors import AlreadyExists, BadData, UnknownKnowledgeBase, VademecumError
from kb.layout import DATABASE
from kb.locks import CATALOG, held
from kb.store import Store


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "home")


def test_a_home_without_knowledge_bases_lists_none(catalog: Catalog) -> None:
    assert catalog.all() == []
    with pytest.raises(UnknownKnowledgeBase, match="none exist"):
        catalog.get("handbook")


def test_what_was_added_is_found_by_name_and_by_id(catalog: Catalog, tmp_path: Path) -> None:
    watched = tmp_path / "docs"
    watched.mkdir()
    made = catalog.add("handbook", "fake-64", 1234, watched)
    assert (made.name, made.created_at, made.watched) == ("handbook", 1234, (str(watched),))
    assert made.id.startswith("vs_")
    assert catalog.get("handbook") == catalog.get(made.id) == made
    assert catalog.all() == [made]
    assert catalog.uploads("handbook").is_dir()


def test_it_remembers_embedder_and_chunker(catalog: Catalog) -> None:
    made = catalog.add("handbook", "fake-64", 0)
    store = Store(made.folder / DATABASE, readonly=True)
    assert store.meta("embedder") == "fake-64"
    assert store.meta("chunker") is not None
    store.close()


def test_ids_are_never_given_twice(catalog: Catalog) -> None:
    first = catalog.add("a", "fake-64", 0).id
    catalog.remove("a")
    assert catalog.add("a", "fake-64", 0).id != first


def test_an_unknown_name_comes_with_the_nearest(catalog: Catalog) -> None:
    catalog.add("handbook", "fake-64", 0)
    catalog.add("medicine", "fake-64", 0)
    with pytest.raises(UnknownKnowledgeBase, match="did you mean handbook"):
        catalog.get("handbok")


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../x", "a/b", "/etc", "a\\b", "a\0b", ".hidden", "-x", "_x"),
        *("Handbook", "a b", "a\n", "法律", "x" * 64, "a.b", "vs_0123456789abcdef01234567"),
    ],
)
def test_an_invalid_name_is_refused_and_nothing_is_made(catalog: Catalog, name: str) -> None:
    with pytest.raises(BadData, match="is not a name"):
        catalog.add(name, "fake-64", 0)
    assert not catalog.home.exists()


@pytest.mark.parametrize("name", ["a", "0", "civil-law_2", "x" * 63])
def test_a_plain_name_is_taken(catalog: Catalog, name: str) -> None:
    assert catalog.add(name, "fake-64", 0).name == name


def test_a_taken_name_is_refused_and_the_old_one_stays(catalog: Catalog) -> None:
    old = catalog.add("handbook", "fake-64", 0)
    with pytest.raises(AlreadyExists, match="handbook"):
        catalog.add("handbook", "fake-32", 1)
    assert catalog.all() == [old]


def test_a_folder_to_watch_must_exist(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(BadData, match="does not exist"):
        catalog.add("handbook", "fake-64", 0, tmp_path / "missing")
    assert catalog.all() == []


def test_a_half_made_folder_is_not_listed(catalog: Catalog) -> None:
    whole = catalog.add("whole", "fake-64", 0)
    root = whole.folder.parent
    (root / "empty").mkdir()
    for name in (".new-half-1a2b", ".removed-old-1a2b"):
        (root / name).mkdir()
        Store(root / name / DATABASE, create=True).close()
    assert [one.name for one in catalog.all()] == ["whole"]


def at_once(*works: Callable[[], object]) -> list[Exception]:
    """Run in threads; what they raised."""
    raised: list[Exception] = []

    def run(work: Callable[[], object]) -> None:
        try:
            work()
        except (VademecumError, OSError, sqlite3.Error, AssertionError) as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_of_those_who_want_a_name_at_once_one_gets_it(catalog: Catalog) -> None:
    for name in "abcde":
        raised = at_once(*[lambda name=name: catalog.add(name, "fake-64", 0)] * 4)
        assert [type(error) for error in raised] == [AlreadyExists] * 3
    assert sorted(path.name for path in (catalog.home / "kb").iterdir()) == list("abcde")


def test_one_that_is_removed_while_others_look_is_just_not_listed(catalog: Catalog) -> None:
    catalog.add("kept", "fake-64", 0)
    names = [f"x{n}" for n in range(20)]
    for name in names:
        catalog.add(name, "fake-64", 0)
    gone = threading.Event()

    def remove() -> None:
        for name in names:
            catalog.remove(name)
        gone.set()

    def look() -> None:
        while not gone.is_set():
            assert catalog.get("kept") in catalog.all()

    assert at_once(remove, look, look) == []


def test_one_that_is_damaged_is_listed_with_its_problem_and_hides_no_other(
    catalog: Catalog,
) -> None:
    made = catalog.add("handbook", "fake-64", 0)
    other = catalog.add("other", "fake-64", 0)
    (made.folder / DATABASE).write_bytes(b"garbage " * 1000)
    damaged, whole = catalog.all()
    assert damaged.id == damaged.name == "handbook" and "is damaged" in damaged.problem
    assert whole == other == catalog.get("other")
    catalog.remove("handbook")
    assert catalog.all() == [other]


def test_nothing_is_left_beside_a_finished_one(catalog: Catalog) -> None:
    made = catalog.add("handbook", "fake-64", 0)
    assert [path.name for path in made.folder.parent.iterdir()] == ["handbook"]


def test_removing_one_touches_neither_another_nor_the_watched_folder(
    catalog: Catalog, tmp_path: Path
) -> None:
    watched = tmp_path / "docs"
    watched.mkdir()
    (watched / "law.md").write_text("text")
    for name in ("a", "ab"):
        catalog.add(name, "fake-64", 0, watched)
        (catalog.uploads(name) / "up.md").write_text("uploaded")
    other = catalog.get("ab")
    assert catalog.remove("a").name == "a"
    assert catalog.all() == [other]
    assert (watched / "law.md").read_text() == "text"
    assert (catalog.uploads("ab") / "up.md").read_text() == "uploaded"
    assert not catalog.uploads("a").exists()
    assert [path.name for path in other.folder.parent.iterdir()] == ["ab"]


def test_removing_goes_by_id_too_and_never_by_path(catalog: Catalog) -> None:
    made = catalog.add("a", "fake-64", 0)
    for name in ("../kb/a", "a/", "", "."):
        with pytest.raises(UnknownKnowledgeBase):
            catalog.remove(name)
    assert catalog.remove(made.id) == made
    assert catalog.all() == []


def test_a_watched_link_is_kept_as_the_folder_it_leads_to(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    made = catalog.add("a", "fake-64", 0, tmp_path / "link")
    assert made.watched == (str((tmp_path / "real").resolve()),)


def test_what_a_crash_left_half_made_or_half_removed_is_cleared(catalog: Catalog) -> None:
    kept = catalog.add("kept", "fake-64", 0)
    (catalog.uploads("kept") / "up.md").write_text("uploaded")
    root = kept.folder.parent
    for name in (".new-half-0a1b2c3d", ".removed-an-old-one-0a1b2c3d", ".removed-kept-0a1b2c3d"):
        (root / name).mkdir()
        Store(root / name / DATABASE, create=True).close()
    catalog.uploads("an-old-one").mkdir()
    (catalog.uploads("an-old-one") / "up.md").write_text("of the one that was removed")
    catalog.clear()
    assert [path.name for path in root.iterdir()] == ["kept"]
    assert not catalog.uploads("an-old-one").exists()
    assert (catalog.uploads("kept") / "up.md").read_text() == "uploaded"


def test_removing_waits_for_one_that_is_being_made(catalog: Catalog) -> None:
    """Else the uploads of the new one would go with those of the old one of its name."""
    catalog.add("a", "fake-64", 0)
    thread = threading.Thread(target=catalog.remove, args=("a",))
    with held(catalog.home / CATALOG, alone=False):  # as whoever makes one holds it
        thread.start()
        thread.join(0.3)
        assert thread.is_alive() and catalog.uploads("a").is_dir()
    thread.join()
    assert catalog.all() == [] and not catalog.uploads("a").exists()


def test_of_those_who_remove_one_at_once_one_does(catalog: Catalog) -> None:
    for _ in range(5):
        catalog.add("a", "fake-64", 0)
        raised = at_once(*[lambda: catalog.remove("a")] * 4)
        assert [type(error) for error in raised] == [UnknownKnowledgeBase] * 3


def test_clearing_waits_for_one_that_is_being_made(catalog: Catalog) -> None:
    def add() -> None:
        for n in range(15):
            catalog.add(f"x{n}", "fake-64", 0)

    def clear() -> None:
        for _ in range(60):
            catalog.clear()

    assert at_once(add, clear) == []
    assert len(catalog.all()) == 15


def test_databases_of_an_older_shape_are_brought_up_to_date_and_damaged_ones_left(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = migrations.STEPS
    monkeypatch.setattr(migrations, "STEPS", steps[:1])
    old = catalog.folder("old")
    old.mkdir(parents=True)
    Store(old / DATABASE, create=True).close()
    monkeypatch.setattr(migrations, "STEPS", steps)
    damaged = catalog.folder("damaged")
    damaged.mkdir()
    (damaged / DATABASE).write_bytes(b"no database")
    assert [bool(one.problem) for one in catalog.all()] == [True, True]
    catalog.migrate()
    assert {one.name: bool(one.problem) for one in catalog.all()} == {"damaged": True, "old": False}
    assert (damaged / DATABASE).read_bytes() == b"no database"
