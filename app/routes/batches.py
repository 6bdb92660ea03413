"""/v1/vector_stores/{id}/file_batches: many staged files into a vector store in one request."""

from typing import Any

from fastapi import APIRouter, Request

from app.access import staged, store
from app.batches import Batch
from app.errors import UnknownFile
from app.gate import Chatting, Writing
from app.paging import Page
from app.parts import Parts, parts
from app.routes.store_files import shown
from app.schemas import NewBatch
from app.shelf import Shelved, find, remove
from kb.ledger import Status
from kb.search import KnowledgeBase

router = APIRouter()
_BATCHES = "/v1/vector_stores/{store_id}/file_batches"


@router.post(_BATCHES)
def create(store_id: str, body: NewBatch, request: Request, caller: Writing) -> dict[str, Any]:
    """All files are checked before the first is attached."""
    at = parts(request)
    kb, _ = store(at, store_id, caller)
    for upload in [staged(at, file_id, caller) for file_id in body.file_ids]:
        at.uploads.attach(upload, kb.name)
    return _object(at, kb, at.batches.add(kb.id, body.file_ids))


@router.get(f"{_BATCHES}/{{batch_id}}")
def get(store_id: str, batch_id: str, request: Request, caller: Chatting) -> dict[str, Any]:
    at = parts(request)
    kb, _ = store(at, store_id, caller)
    return _object(at, kb, at.batches.get(kb.id, batch_id))


@router.post(f"{_BATCHES}/{{batch_id}}/cancel")
def cancel(store_id: str, batch_id: str, request: Request, caller: Writing) -> dict[str, Any]:
    """Takes out the files that have not been read yet."""
    at = parts(request)
    kb, listed = store(at, store_id, caller)
    batch = at.batches.get(kb.id, batch_id)
    for file in _files(at, kb, batch):
        if file.status == "in_progress":
            remove(kb, listed, at.uploads, file.id)
    return _object(at, kb, batch)


@router.get(f"{_BATCHES}/{{batch_id}}/files")
def files(
    store_id: str,
    batch_id: str,
    request: Request,
    caller: Chatting,
    paging: Page,
    filter: Status | None = None,  # OpenAI's name
) -> dict[str, Any]:
    at = parts(request)
    kb, _ = store(at, store_id, caller)
    found = _files(at, kb, at.batches.get(kb.id, batch_id))
    return paging.page([shown(file) for file in found if filter in (None, file.status)])


def _files(at: Parts, kb: KnowledgeBase, batch: Batch) -> list[Shelved]:
    """Those that are still in the vector store."""
    out = []
    for file_id in batch.file_ids:
        try:
            out.append(find(kb, at.uploads, file_id))
        except UnknownFile:
            continue  # deleted since: counted as cancelled
    return out


def _object(at: Parts, kb: KnowledgeBase, batch: Batch) -> dict[str, Any]:
    found = _files(at, kb, batch)
    counts = {"in_progress": 0, "completed": 0, "failed": 0, "cancelled": 0}
    for file in found:
        counts[file.status] += 1
    counts["cancelled"] += len(batch.file_ids) - len(found)
    status = "completed"
    if counts["in_progress"]:
        status = "in_progress"
    elif counts["cancelled"] == len(batch.file_ids):
        status = "cancelled"
    return {
        "id": batch.id,
        "object": "vector_store.file_batch",
        "created_at": batch.created_at,
        "vector_store_id": batch.store_id,
        "status": status,
        "file_counts": {**counts, "total": len(batch.file_ids)},
    }
