"""The ledger of files: which files a knowledge base follows, and how far each one is.

It lives in the store's database, so that a document and its file's state can move together. The
rows that are `in_progress` are the work queue, which therefore survives a crash. Knows nothing of
folders on disk; a path is a string relative to its folder.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from kb.store import Row, Store

Status = Literal["in_progress", "completed", "cancelled", "failed"]


@dataclass(frozen=True, slots=True)
class File:
    """A followed file. `changed_at` is when the change that is being worked on was seen (epoch
    seconds) and strictly grows with each; `due_at` when the worker may take it."""

    id: str
    folder: str
    path: str
    status: Status
    error_code: str | None
    error_message: str | None
    size: int
    mtime_ns: int
    attempts: int
    due_at: float
    created_at: float
    changed_at: float


class Ledger:
    """Reads and writes the rows. `clock` gives epoch seconds."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock

    # -- watched folders -------------------------------------------------------------------------

    def folders(self) -> list[str]:
        return [str(r["path"]) for r in self._store.rows("SELECT path FROM folders ORDER BY path")]

    def add_folder(self, path: str) -> None:
        with self._store.transaction() as db:
            db.execute("INSERT OR IGNORE INTO folders VALUES (?)", (path,))

    # -- reading ---------------------------------------------------------------------------------

    def get(self, file_id: str) -> File | None:
        return _first(self._store.rows("SELECT * FROM files WHERE id = ?", (file_id,)))

    def find(self, folder: str, path: str) -> File | None:
        sql = "SELECT * FROM files WHERE folder = ? AND path = ?"
        return _first(self._store.rows(sql, (folder, path)))

    def all(self, folder: str | None = None) -> list[File]:
        """All files, or those of one folder, oldest first."""
        sql = "SELECT * FROM files WHERE ? IS NULL OR folder = ? ORDER BY created_at, id"
        return [_file(r) for r in self._store.rows(sql, (folder, folder))]

    def due(self, limit: int) -> list[File]:
        """Work that may be taken now, most recent change first: what a person just did overtakes
        a bulk load."""
        sql = (
            "SELECT * FROM files WHERE status = 'in_progress' AND due_at <= ?"
            " ORDER BY changed_at DESC, id LIMIT ?"
        )
        return [_file(r) for r in self._store.rows(sql, (self._clock(), limit))]

    def next_due(self) -> float | None:
        """When the earliest waiting file falls due; None when nothing waits."""
        sql = "SELECT min(due_at) AS due FROM files WHERE status = 'in_progress'"
        due = self._store.rows(sql)[0]["due"]
        return None if due is None else float(due)

    def counts(self) -> dict[str, int]:
        sql = "SELECT status, count(*) AS n FROM files GROUP BY status ORDER BY status"
        return {str(r["status"]): int(r["n"]) for r in self._store.rows(sql)}

    # -- writing ---------------------------------------------------------------------------------

    def changed(
        self, folder: str, path: str, *, delay: float = 0.0, file_id: str | None = None
    ) -> File:
        """A file appeared or changed: it is work again, `delay` seconds from now."""
        now = self._clock()
        with self._store.transaction() as db:
            db.execute(
                "INSERT INTO files (id, folder, path, status, due_at, created_at, changed_at)"
                " VALUES (?, ?, ?, 'in_progress', ?, ?, ?)"
                " ON CONFLICT (folder, path) DO UPDATE SET status = 'in_progress',"
                " due_at = excluded.due_at, attempts = 0,"
                # Strictly growing: two changes in one tick of the clock, or around a clock that was
                # set back, are two. A double keeps microseconds apart until the year 2242.
                " changed_at = max(excluded.changed_at, changed_at + 0.000001),"
                " error_code = NULL, error_message = NULL",
                (file_id or new_file_id(), folder, path, now + delay, now, now),
            )
        found = self.find(folder, path)
        assert found is not None
        return found

    def completed(self, file: File, *, size: int, mtime_ns: int) -> None:
        """The knowledge base holds the file as it was at `mtime_ns`; unless it changed since."""
        self._finish(file, "completed", None, None, size, mtime_ns)

    def failed(self, file: File, code: str, message: str, *, size: int, mtime_ns: int) -> None:
        """The file as it was at `mtime_ns` cannot be known; unless it changed since."""
        self._finish(file, "failed", code, message, size, mtime_ns)

    def retry(
        self, file: File, code: str, message: str, *, delay: float, counted: bool = True
    ) -> None:
        """A transient failure: still in progress, due again later, with the reason shown. Merely
        waiting for somebody is not `counted` as an attempt."""
        with self._store.transaction() as db:
            db.execute(
                "UPDATE files SET attempts = attempts + ?, due_at = ?, error_code = ?,"
                " error_message = ? WHERE id = ? AND changed_at = ?",
                (int(counted), self._clock() + delay, code, message, file.id, file.changed_at),
            )

    def renamed(self, file: File, folder: str, path: str, *, reread: bool = False) -> None:
        """The same bytes under a new path; whatever the ledger knew there is forgotten. `reread`
        also forgets which version of the bytes is known, so that they are read again."""
        with self._store.transaction() as db:
            other = self.find(folder, path)
            if other is not None and other.id != file.id:
                self.forget(other)
            db.execute(
                "UPDATE files SET folder = ?, path = ?,"
                " mtime_ns = CASE WHEN ? THEN 0 ELSE mtime_ns END WHERE id = ?",
                (folder, path, reread, file.id),
            )
            self._store.touch()

    def forget(self, file: File) -> None:
        """The file is gone: its document dies and its row goes, in one transaction."""
        with self._store.transaction() as db:
            self._store.retire(file.id)
            db.execute("DELETE FROM files WHERE id = ?", (file.id,))

    def _finish(
        self,
        file: File,
        status: Status,
        code: str | None,
        message: str | None,
        size: int,
        mtime_ns: int,
    ) -> None:
        # changed_at guards against finishing a version that a newer event already replaced.
        with self._store.transaction() as db:
            db.execute(
                "UPDATE files SET status = ?, error_code = ?, error_message = ?, size = ?,"
                " mtime_ns = ? WHERE id = ? AND changed_at = ?",
                (status, code, message, size, mtime_ns, file.id, file.changed_at),
            )


def new_file_id() -> str:
    return f"file-{secrets.token_hex(12)}"


def _first(rows: list[Row]) -> File | None:
    return _file(rows[0]) if rows else None


def _file(row: Row) -> File:
    return File(**dict(row))
