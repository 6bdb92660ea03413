"""The files of a vector store: attach, list, delete, and the one-step upload."""

from typing import Annotated, Any

from fastapi import APIRouter, File, Request, UploadFile
from starlette.concurrency import run_in_threadpool

from app.errors import BadRequest, UnknownFile
from app.gate import Chatting, Writing
from app.parts import parts
from app.receive import received
from app.routes.vector_stores import visible
from app.schemas import Attachment
from app.shelf import Shelved, files, find, remove

router = APIRouter()
_FILES = "/v1/vector_stores/{store_id}/files"


@router.post("/v1/vector_stores/{store_id}/upload")
async def upload(
    store_id: str,
    request: Request,
    caller: Writing,
    many: Annotated[list[UploadFile] | None, File(alias="files")] = None,
    one: Annotated[UploadFile | None, File(alias="file")] = None,
) -> dict[str, Any]:
    """Fields `files` (repeated) or `file`. Replies when the bytes of all are durable; names are
    checked before any is kept."""
    at = parts(request)
    sent = [*(many or ()), *([one] if one else ())]
    if not sent:
        raise BadRequest("no file was sent: field `files` or `file`", "files")
    kb, _ = await run_in_threadpool(visible, at, store_id, caller)
    names = [received(file, at.settings.max_upload_mb) for file in sent]
    kept = []
    for name, file in zip(names, sent, strict=True):
        landed = await run_in_threadpool(at.uploads.put, kb.name, name, file.file)
        at.metrics.uploads.inc()
        kept.append(_object(await run_in_threadpool(find, kb, at.uploads, landed.id)))
    return {"object": "list", "data": kept, "has_more": False}


@router.post(_FILES)
async def attach(
    store_id: str, body: Attachment, request: Request, caller: Writing
) -> dict[str, Any]:
    at = parts(request)
    kb, _ = await run_in_threadpool(visible, at, store_id, caller)
    staged = await run_in_threadpool(at.uploads.staged, body.file_id)
    if staged.owner != caller.name and not caller.may("admin"):
        raise UnknownFile(f"there is no file {body.file_id!r}")
    landed = await run_in_threadpool(at.uploads.attach, staged, kb.name)
    return _object(await run_in_threadpool(find, kb, at.uploads, landed.id))


@router.get(_FILES)
async def list_all(store_id: str, request: Request, caller: Chatting) -> dict[str, Any]:
    at = parts(request)
    kb, _ = await run_in_threadpool(visible, at, store_id, caller)
    found = await run_in_threadpool(files, kb, at.uploads)
    return {"object": "list", "data": [_object(file) for file in found], "has_more": False}


@router.get(f"{_FILES}/{{file_id}}")
async def get(store_id: str, file_id: str, request: Request, caller: Chatting) -> dict[str, Any]:
    at = parts(request)
    kb, _ = await run_in_threadpool(visible, at, store_id, caller)
    return _object(await run_in_threadpool(find, kb, at.uploads, file_id))


@router.delete(f"{_FILES}/{{file_id}}")
async def delete(store_id: str, file_id: str, request: Request, caller: Writing) -> dict[str, Any]:
    at = parts(request)
    kb, listed = await run_in_threadpool(visible, at, store_id, caller)
    await run_in_threadpool(remove, kb, listed, at.uploads, file_id)
    return {"id": file_id, "object": "vector_store.file.deleted", "deleted": True}


def _object(file: Shelved) -> dict[str, Any]:
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
