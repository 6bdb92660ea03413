"""The ledger of files: which files a knowledge base follows, and how far each one is.

It lives in the store's database, so that a document and its file's state can move together. The
rows that are `in_progress` are the work queue, which therefore survives a crash. Knows nothing of
folders on disk; a path is a string relative to its folder.
"""

import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from kb.store import Row, Store

Status = Literal["in_progress", "completed", "cancelled", "failed"]


@dataclass(frozen=True, slots=True)
class File:
    """A followed file. `changed_at` is when the change that is being worked on was seen (epoch
    seconds) and strictly grows with each; `due_at` when the worker may take it. `bulk`: it came
    with many others, and waits for those that came alone. `closed`: whoever wrote it is done."""

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
    bulk: bool
    closed: bool


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

    def due(self, limit: int, *, bulk: bool | None = None) -> list[File]:
        """Work that may be taken now, of one lane or of both: what a person just did overtakes a
        bulk load, and in either lane the most recent change comes first."""
        lane = "" if bulk is None else f" AND bulk = {int(bulk)}"
        sql = (
            "SELECT * FROM files INDEXED BY files_lanes"
            f" WHERE status = 'in_progress'{lane} AND due_at <= ?"
            " ORDER BY bulk, changed_at DESC, id LIMIT ?"
        )
        return [_file(r) for r in self._store.rows(sql, (self._clock(), limit))]

    def waiting(self) -> list[File]:
        """All work, due or not."""
        sql = "SELECT * FROM files WHERE status = 'in_progress' ORDER BY due_at, id"
        return [_file(r) for r in self._store.rows(sql)]

    def next_due(self) -> float | None:
        """When the next file falls due that is not due yet; None when there is none."""
        sql = "SELECT min(due_at) AS due FROM files WHERE status = 'in_progress' AND due_at > ?"
        due = self._store.rows(sql, (self._clock(),))[0]["due"]
        return None if due is None else float(due)

    def wanted(self, files: Sequence[File]) -> set[str]:
        """The ids of those files whose version is still waited for: in progress, unchanged."""
        marks = ",".join("?" * len(files))
        rows = self._store.rows(
            f"SELECT id, changed_at FROM files WHERE status = 'in_progress' AND id IN ({marks})",
            tuple(file.id for file in files),
        )
        now = {str(r["id"]): float(r["changed_at"]) for r in rows}
        return {file.id for file in files if now.get(file.id) == file.changed_at}

    def counts(self) -> dict[str, int]:
        sql = "SELECT status, count(*) AS n FROM files GROUP BY status ORDER BY status"
        return {str(r["status"]): int(r["n"]) for r in self._store.rows(sql)}

    # -- writing ---------------------------------------------------------------------------------

    def changed(
        self,
        folder: str,
        path: str,
        *,
        delay: float = 0.0,
        file_id: str | None = None,
        at: float | None = None,
        bulk: bool = False,
        closed: bool = False,
    ) -> File:
        """A file appeared or changed `at` that time (now): it is work again, `delay` seconds
        later."""
        at = self._clock() if at is None else at
        with self._store.transaction() as db:
            db.execute(
                "INSERT INTO files"
                " (id, folder, path, status, due_at, created_at, changed_at, bulk, closed)"
                " VALUES (?, ?, ?, 'in_progress', ?, ?, ?, ?, ?)"
                " ON CONFLICT (folder, path) DO UPDATE SET status = 'in_progress',"
                " due_at = excluded.due_at, attempts = 0, bulk = excluded.bulk,"
                " closed = excluded.closed,"
                # Strictly growing: two changes in one tick of the clock, or around a clock that was
                # set back, are two. A double keeps microseconds apart until the year 2242.
                " changed_at = max(excluded.changed_at, changed_at + 0.000001),"
                " error_code = NULL, error_message = NULL",
                (file_id or new_file_id(), folder, path, at + delay, at, at, bulk, closed),
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

    def hasten(self, at_most: float) -> None:
        """Nothing waits for longer than `at_most` seconds from now: a clock that was ahead when the
        file was put off has been set back."""
        with self._store.transaction() as db:
            db.execute(
                "UPDATE files SET due_at = min(due_at, ?) WHERE status = 'in_progress'",
                (self._clock() + at_most,),
            )

    def doubt_failed(self) -> None:
        """What failed may no longer fail: which versions did is forgotten, so that a sweep finds
        them changed."""
        with self._store.transaction() as db:
            db.execute("UPDATE files SET size = 0, mtime_ns = 0 WHERE status = 'failed'")

    def doubt(self, ids: Iterable[str]) -> None:
        """These files are to be read again although their bytes are known: which versions are is
        forgotten, so that a sweep finds them changed."""
        with self._store.transaction() as db:
            sql = "UPDATE files SET size = 0, mtime_ns = 0 WHERE id = ?"
            db.executemany(sql, ((file_id,) for file_id in ids))

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
    values = dict(row)
    return File(**{**values, "bulk": bool(values["bulk"]), "closed": bool(values["closed"])})
