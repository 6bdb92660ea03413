"""sqlite3's errors leave the store as ours, with the file's name, and say whether to try again."""

import resource
import sqlite3
from pathlib import Path

import pytest

from kb.errors import StoreBroken, StoreDown
from kb.layout import DATABASE
from kb.sqlite import translated
from kb.store import Store
from tests.kb.bases import Base


def ruin(file: Path) -> None:
    """All pages but the first two: the header and the table of tables stay readable."""
    content = bytearray(file.read_bytes())
    content[8192:] = b"\xff" * (len(content) - 8192)
    file.write_bytes(bytes(content))


def test_a_damaged_database_is_said_to_be_broken_by_its_name(base: Base) -> None:
    base.put("a.md", "one passage " * 50)
    base.close()
    ruin(base.folder / DATABASE)
    store = Store(base.folder / DATABASE, readonly=True)
    with pytest.raises(StoreBroken, match=r"knowledge\.db is damaged: "):
        store.rows("SELECT * FROM chunks")
    store.close()


def test_a_missing_table_is_damage(base: Base) -> None:
    with pytest.raises(StoreBroken, match="no such table"):
        base.store.rows("SELECT * FROM nowhere")


def test_a_lock_that_is_held_too_long_may_pass(base: Base) -> None:
    holder = sqlite3.connect(base.store.file, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    base.store.rows("PRAGMA busy_timeout = 1")
    with pytest.raises(StoreDown, match=r"knowledge\.db cannot be used right now: .*locked"):
        base.store.set_meta("key", "value")
    holder.close()
    base.store.set_meta("key", "value")


@pytest.mark.parametrize("readonly", [False, True])
def test_a_database_that_cannot_be_opened_right_now_may_pass(base: Base, readonly: bool) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # as when too many files are open
    try:
        with pytest.raises(StoreDown, match=r"knowledge\.db cannot be used right now"):
            Store(base.store.file, readonly=readonly)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    Store(base.store.file, readonly=readonly).close()


def test_mistakes_of_the_program_stay_what_they_are() -> None:
    with pytest.raises(sqlite3.IntegrityError), translated("x.db"):
        raise sqlite3.IntegrityError("constraint")
    with pytest.raises(ZeroDivisionError), translated("x.db"):
        raise ZeroDivisionError
