"""The files of a vector store: attach, list, read, delete, and the one-step upload."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from app.access import staged, store
from app.errors import UnknownFile
from app.gate import Chatting, Writing
from app.paging import Page
from app.parts import parts
from app.receive import form_of, received
from app.schemas import Attachment
from app.shelf import Shelved, files, find, remove
from kb.ledger import Status

router = APIRouter()
_FILES = "/v1/vector_stores/{store_id}/files"


@router.post("/v1/vector_stores/{store_id}/upload", openapi_extra=form_of("file"))
async def upload(store_id: str, request: Request, caller: Writing) -> dict[str, Any]:
    """One or many files, in fields of any name. Replies when the bytes of all are durable; names
    and sizes are checked before any is kept."""
    at = parts(request)
    kb, _ = await run_in_threadpool(store, at, store_id, caller)
    kept = []
    async with received(request, at.settings.max_upload_mb) as form:
        for name, source in form.files:
            landed = await run_in_threadpool(at.uploads.put, kb.name, name, source)
            at.metrics.uploads.inc()
            kept.append(shown(await run_in_threadpool(find, kb, at.uploads, landed.id)))
    return {"object": "list", "data": kept, "has_more": False}


@router.post(_FILES)
def attach(store_id: str, body: Attachment, request: Request, caller: Writing) -> dict[str, Any]:
    at = parts(request)
    kb, _ = store(at, store_id, caller)
    landed = at.uploads.attach(staged(at, body.file_id, caller), kb.name)
    return shown(find(kb, at.uploads, landed.id))


@router.get(_FILES)
def list_all(
    store_id: str,
    request: Request,
    caller: Chatting,
    paging: Page,
    filter: Status | None = None,  # OpenAI's name
) -> dict[str, Any]:
    at = parts(request)
    kb, _ = store(at, store_id, caller)
    found = [file for file in files(kb, at.uploads) if filter in (None, file.status)]
    return paging.page([shown(file) for file in found])


@router.get(f"{_FILES}/{{file_id}}")
def get(store_id: str, file_id: str, request: Request, caller: Chatting) -> dict[str, Any]:
    at = parts(request)
    kb, _ = store(at, store_id, caller)
    return shown(find(kb, at.uploads, file_id))


@router.get(f"{_FILES}/{{file_id}}/content")
def content(store_id: str, file_id: str, request: Request, caller: Chatting) -> dict[str, Any]:
    """The extracted text, in which a citation's `start` and `end` count."""
    at = parts(request)
    kb, _ = store(at, store_id, caller)
    file = find(kb, at.uploads, file_id)
    document = kb.store.document(file_id)
    if document is None:
        raise UnknownFile(f"{file.name} has not been read")
    return {
        "object": "vector_store.file_content.page",
        "data": [{"type": "text", "text": document.text}],
        "has_more": False,
        "next_page": None,
    }


@router.delete(f"{_FILES}/{{file_id}}")
def delete(store_id: str, file_id: str, request: Request, caller: Writing) -> dict[str, Any]:
    at = parts(request)
    kb, listed = store(at, store_id, caller)
    remove(kb, listed, at.uploads, file_id)
    return {"id": file_id, "object": "vector_store.file.deleted", "deleted": True}


def shown(file: Shelved) -> dict[str, Any]:
    """OpenAI's vector-store file object."""
    code, message = file.error or ("", "")
    return {
        "id": file.id,
        "object": "vector_store.file",
        "created_at": file.created_at,
        "vector_store_id": file.kb_id,
        "status": file.status,
        "last_error": {"code": code, "message": message} if file.error else None,
        "usage_bytes": file.size,
        "filename": file.name,
        "attributes": {},
    }
