"""The files of a knowledge base as clients see them: the ledger's rows joined with uploads on disk.

A file that was uploaded a moment ago is on disk and not yet in the ledger: it is in progress. One
that was deleted a moment ago may still be in the ledger: it is gone. Only reads. Blocking.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from app.errors import NotRemovable, UnknownFile
from app.knowledge import is_followed
from app.uploads import Upload, Uploads
from kb.catalog import Listed
from kb.ledger import File, Status
from kb.records import shown_name
from kb.search import KnowledgeBase

_PATIENCE = 2.0
"""Seconds that a deletion waits for ingest to take notice."""


@dataclass(frozen=True, slots=True)
class Shelved:
    """A file in a knowledge base. Its bytes are at `path`, inside `root`; `size` is in bytes."""

    id: str
    kb_id: str
    name: str
    root: Path
    path: Path
    status: Status
    size: int
    created_at: int
    error: tuple[str, str] | None = None
    uploaded: bool = False


def files(kb: KnowledgeBase, uploads: Uploads) -> list[Shelved]:
    """All files of a knowledge base, oldest first."""
    on_disk = {upload.id: upload for upload in uploads.of(kb.name)}
    out = []
    for row in kb.ledger.all():
        upload = on_disk.pop(row.id, None)
        if upload is not None or not _is_upload(row):
            out.append(_known(kb.id, row, upload))
    out.extend(_waiting(kb.id, upload) for upload in on_disk.values())
    return sorted(out, key=lambda file: (file.created_at, file.id))


def summary(kb: KnowledgeBase, uploads: Uploads) -> tuple[dict[str, int], int]:
    """How many files are in each status, and the bytes of those that were read. Quick: looks at
    folders, not at each file."""
    counts = dict.fromkeys(get_args(Status), 0)
    size = 0
    on_disk = set(uploads.ids(kb.name))
    for row in kb.ledger.all():
        if row.id in on_disk or not _is_upload(row):
            counts[row.status] += 1
            size += row.size
        on_disk.discard(row.id)
    counts["in_progress"] += len(on_disk)
    return counts, size


def find(kb: KnowledgeBase, uploads: Uploads, file_id: str) -> Shelved:
    """Raises UnknownFile."""
    row = kb.ledger.get(file_id)
    upload = uploads.find(kb.name, file_id)
    if row is not None and (upload is not None or not _is_upload(row)):
        return _known(kb.id, row, upload)
    if upload is not None:
        return _waiting(kb.id, upload)
    raise UnknownFile(f"there is no file {file_id!r} in vector store {kb.id}")


def remove(
    kb: KnowledgeBase,
    listed: Listed,
    uploads: Uploads,
    file_id: str,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Delete an uploaded file. Returns when no search finds it any more, if ingest is running.

    Raises UnknownFile, NotRemovable.
    """
    file = find(kb, uploads, file_id)
    if not file.uploaded:
        raise NotRemovable(
            f"{file.name} lies in a folder that vector store {kb.name} follows: delete it there"
        )
    uploads.remove(kb.name, file_id)
    until = clock() + (_PATIENCE if is_followed(listed) else 0.0)
    while kb.ledger.get(file_id) is not None and clock() < until:
        sleep(0.02)


def contents(file: Shelved) -> Path:
    """Where a file's bytes can be read. Raises UnknownFile.

    A watched folder may hold links; those that lead out of it are followed for nobody.
    """
    real = file.path.resolve()
    if not real.is_file() or not real.is_relative_to(file.root.resolve()):
        raise UnknownFile(f"the bytes of file {file.id!r} are gone")
    return real


def _is_upload(row: File) -> bool:
    return row.path.startswith(f"{row.id}/")


def _known(kb_id: str, row: File, upload: Upload | None) -> Shelved:
    error = (row.error_code, row.error_message or "") if row.error_code else None
    root = upload.path.parent if upload else Path(row.folder)
    path = upload.path if upload else root / row.path
    # The ledger learns the size of a file when it has read it.
    size = row.size or (upload.size if upload else 0)
    name = shown_name(row.path)
    return Shelved(
        row.id, kb_id, name, root, path, row.status, size, int(row.created_at), error, bool(upload)
    )


def _waiting(kb_id: str, upload: Upload) -> Shelved:
    return Shelved(
        upload.id,
        kb_id,
        upload.path.name,
        upload.path.parent,
        upload.path,
        "in_progress",
        upload.size,
        upload.created_at,
        uploaded=True,
    )
