"""The numbered steps that bring a knowledge base's database to today's shape.

A step, once released, is never edited; a new shape is a new step.
"""

import sqlite3
import time

from kb.errors import StoreBroken

STEPS: tuple[str, ...] = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;

    CREATE TABLE folders (path TEXT PRIMARY KEY) STRICT;

    CREATE TABLE files (
        id TEXT PRIMARY KEY,
        folder TEXT NOT NULL,
        path TEXT NOT NULL,
        status TEXT NOT NULL CHECK (status IN ('in_progress', 'completed', 'cancelled', 'failed')),
        error_code TEXT,
        error_message TEXT,
        size INTEGER NOT NULL DEFAULT 0,
        mtime_ns INTEGER NOT NULL DEFAULT 0,
        attempts INTEGER NOT NULL DEFAULT 0,
        due_at REAL NOT NULL,
        created_at REAL NOT NULL,
        changed_at REAL NOT NULL,
        UNIQUE (folder, path)
    ) STRICT;
    CREATE INDEX files_due ON files (due_at) WHERE status = 'in_progress';

    CREATE TABLE documents (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        file_id TEXT NOT NULL,
        sha256 TEXT NOT NULL,
        title TEXT NOT NULL,
        text TEXT NOT NULL,
        pages TEXT NOT NULL,
        seq INTEGER NOT NULL,
        dead_seq INTEGER
    ) STRICT;
    CREATE UNIQUE INDEX documents_live ON documents (file_id) WHERE dead_seq IS NULL;

    CREATE TABLE chunks (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        document_id INTEGER NOT NULL REFERENCES documents (id),
        start INTEGER NOT NULL,
        "end" INTEGER NOT NULL,
        heading TEXT NOT NULL,
        text TEXT NOT NULL,
        vector BLOB NOT NULL,
        seq INTEGER NOT NULL,
        dead_seq INTEGER
    ) STRICT;
    CREATE INDEX chunks_document ON chunks (document_id);
    CREATE INDEX chunks_seq ON chunks (seq);
    CREATE INDEX chunks_dead ON chunks (dead_seq) WHERE dead_seq IS NOT NULL;
    """,
    """
    ALTER TABLE files ADD COLUMN bulk INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE files ADD COLUMN closed INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX files_lanes ON files (bulk, changed_at DESC, id) WHERE status = 'in_progress';

    CREATE TABLE latencies (
        what TEXT NOT NULL,
        bulk INTEGER NOT NULL,
        at_most REAL NOT NULL,
        count INTEGER NOT NULL,
        seconds REAL NOT NULL,
        PRIMARY KEY (what, bulk, at_most)
    ) STRICT;
    """,
)


def migrate(connection: sqlite3.Connection) -> None:
    """Apply the missing steps, each in a transaction. Raises StoreBroken for a newer file."""
    connection.execute(
        "CREATE TABLE IF NOT EXISTS migrations"
        " (version INTEGER PRIMARY KEY, applied_at REAL) STRICT"
    )
    done = _done(connection)
    for version, step in enumerate(STEPS[done:], start=done + 1):
        connection.executescript(
            f"BEGIN IMMEDIATE; {step}; "
            f"INSERT INTO migrations VALUES ({version}, {time.time()}); COMMIT;"
        )


def must_be_current(connection: sqlite3.Connection) -> None:
    """For readers, who may not migrate. Raises StoreBroken for a newer or an older file."""
    if (done := _done(connection)) < len(STEPS):
        raise StoreBroken(
            f"the knowledge base is of an older shape (step {done} of {len(STEPS)});"
            " start ingest once, which brings it up to date"
        )


def _done(connection: sqlite3.Connection) -> int:
    """The last step that was applied. Raises StoreBroken for one that is not known here."""
    (done,) = connection.execute("SELECT coalesce(max(version), 0) FROM migrations").fetchone()
    if done > len(STEPS):
        raise StoreBroken(
            f"the knowledge base was written by a newer Vademecum (step {done}; known {len(STEPS)})"
        )
    return int(done)
