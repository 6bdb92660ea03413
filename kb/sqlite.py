"""What is particular to SQLite: its errors -> ours, and how a file is written anew. Knows no table.

What may pass (a full disk, a lock held too long) is told from what will not (a damaged file).
Mistakes of the program (a constraint, a write by a reader) stay what they are.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kb.errors import StoreBroken, StoreDown

_PASSING = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PROTOCOL,
}
# SQLITE_ERROR: "no such table" and the like, which a whole knowledge base never says.
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}


@contextmanager
def translated(name: str) -> Iterator[None]:
    """Raises StoreDown, StoreBroken in place of sqlite3's errors; `name` is the database file's."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        # The low byte is the kind; the rest says more than is asked here.
        kind = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE) & 0xFF
        if kind in _PASSING:
            raise StoreDown(f"{name} cannot be used right now: {error}") from error
        if kind in _DAMAGED:
            raise StoreBroken(f"{name} is damaged: {error}") from error
        raise


def vacuum(db: sqlite3.Connection, wanted: Callable[[], bool]) -> bool:
    """Write the file anew without what was deleted; False if it gave way to `wanted`."""
    db.set_progress_handler(lambda: int(wanted()), 10_000)
    try:
        db.execute("VACUUM")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        return False
    finally:
        db.set_progress_handler(None, 0)
    return True


def cut_log(db: sqlite3.Connection) -> bool:
    """Bring the write-ahead log into the file and empty it; False while readers need it."""
    ((patience,),) = db.execute("PRAGMA busy_timeout").fetchall()
    db.execute("PRAGMA busy_timeout = 200")  # whoever waits for this process waits no longer
    try:
        ((busy, _, _),) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        db.execute(f"PRAGMA busy_timeout = {patience}")
    return not busy
