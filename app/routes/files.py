"""/v1/files: bytes that a client keeps here to put into vector stores, and all files in those."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool

from app.access import owns, shelved
from app.auth import Caller
from app.errors import BadRequest, UnknownFile
from app.gate import Chatting, Writing
from app.paging import Page
from app.parts import Parts, parts
from app.receive import form_of, received
from app.shelf import Shelved, contents, files, remove
from app.uploads import Upload

router = APIRouter()
_LIMIT = 10_000  # OpenAI's default for this list


@router.post("/v1/files", openapi_extra=form_of("file", "purpose"))
async def create(request: Request, caller: Writing) -> dict[str, Any]:
    """Replies when the bytes are durable."""
    at = parts(request)
    async with received(request, at.settings.max_upload_mb) as form:
        if len(form.files) > 1:
            raise BadRequest("one file at a time", "file")
        ((name, source),) = form.files
        purpose = form.fields.get("purpose", "assistants")
        staged = await run_in_threadpool(at.uploads.stage, name, source, caller.name, purpose)
    at.metrics.uploads.inc()
    return _object(staged)


@router.get("/v1/files")
def list_all(
    request: Request, caller: Chatting, paging: Page, purpose: str | None = None
) -> dict[str, Any]:
    objects = _all(parts(request), caller)
    wanted = [one for one in objects if purpose in (None, one["purpose"])]
    return paging.page(wanted, _LIMIT)


@router.get("/v1/files/{file_id}")
def get(file_id: str, request: Request, caller: Chatting) -> dict[str, Any]:
    return _object(_find(parts(request), caller, file_id))


@router.get("/v1/files/{file_id}/content")
def content(file_id: str, request: Request, caller: Chatting) -> FileResponse:
    found = _find(parts(request), caller, file_id)
    path = found.path if isinstance(found, Upload) else contents(found)
    # Never shown by a browser as a page of this server, whatever the bytes are.
    return FileResponse(
        path,
        media_type="application/octet-stream",
        filename=path.name,
        headers={"X-Content-Type-Options": "nosniff"},
    )


@router.delete("/v1/files/{file_id}")
def delete(file_id: str, request: Request, caller: Writing) -> dict[str, Any]:
    """Also takes it out of every vector store that the caller sees."""
    at = parts(request)
    found = _find(at, caller, file_id)
    for _, kb, listed in shelved(at, file_id, caller):
        remove(kb, listed, at.uploads, file_id)
    if isinstance(found, Upload):
        at.uploads.remove_staged(file_id)
    return {"id": file_id, "object": "file", "deleted": True}


def _all(at: Parts, caller: Caller) -> list[dict[str, Any]]:
    mine = {u.id: _object(u) for u in at.uploads.all_staged() if owns(caller, u)}
    for kb in at.kb.all(caller.sees):
        for one in files(kb, at.uploads):
            mine.setdefault(one.id, _object(one))
    return list(mine.values())


def _find(at: Parts, caller: Caller, file_id: str) -> Upload | Shelved:
    """Raises UnknownFile, in the same words for what is missing and what is another's."""
    staged = at.uploads.kept(file_id)
    if staged is not None and owns(caller, staged):
        return staged
    for one, _, _ in shelved(at, file_id, caller):
        return one
    raise UnknownFile(f"there is no file {file_id!r}")


def _object(file: Upload | Shelved) -> dict[str, Any]:
    if isinstance(file, Upload):
        name, purpose, status = file.path.name, file.purpose, "processed"
    else:
        name, purpose = file.name, "assistants"
        status = {"completed": "processed", "failed": "error"}.get(file.status, "uploaded")
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.size,
        "created_at": file.created_at,
        "filename": name,
        "purpose": purpose,
        "status": status,
    }
