"""/v1/files: bytes that a client keeps here, to put into vector stores later."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, UploadFile
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool

from app.auth import Caller
from app.errors import UnknownFile
from app.gate import Chatting, Writing
from app.parts import Parts, parts
from app.receive import received
from app.shelf import Shelved, contents, files
from app.uploads import Upload

router = APIRouter()


@router.post("/v1/files")
async def create(
    file: UploadFile, request: Request, caller: Writing, purpose: Annotated[str, Form()]
) -> dict[str, Any]:
    at = parts(request)
    name = received(file, at.settings.max_upload_mb)
    staged = await run_in_threadpool(at.uploads.stage, name, file.file, caller.name, purpose)
    return _staged(staged)


@router.get("/v1/files")
async def list_all(request: Request, caller: Chatting) -> dict[str, Any]:
    found = await run_in_threadpool(_all, parts(request), caller)
    return {"object": "list", "data": found, "has_more": False}


@router.get("/v1/files/{file_id}")
async def get(file_id: str, request: Request, caller: Chatting) -> dict[str, Any]:
    found = await run_in_threadpool(_find, parts(request), caller, file_id)
    return _staged(found) if isinstance(found, Upload) else _shelved(found)


@router.get("/v1/files/{file_id}/content")
async def content(file_id: str, request: Request, caller: Chatting) -> FileResponse:
    found = await run_in_threadpool(_find, parts(request), caller, file_id)
    path = found.path if isinstance(found, Upload) else await run_in_threadpool(contents, found)
    # Never shown by a browser as a page of this server, whatever the bytes are.
    return FileResponse(
        path,
        media_type="application/octet-stream",
        filename=path.name,
        headers={"X-Content-Type-Options": "nosniff"},
    )


@router.delete("/v1/files/{file_id}")
async def delete(file_id: str, request: Request, caller: Writing) -> dict[str, Any]:
    at = parts(request)
    found = await run_in_threadpool(_find, at, caller, file_id)
    if not isinstance(found, Upload):
        raise UnknownFile(f"{file_id!r} belongs to a vector store: delete it there")
    await run_in_threadpool(at.uploads.remove_staged, file_id)
    return {"id": file_id, "object": "file", "deleted": True}


def _all(at: Parts, caller: Caller) -> list[dict[str, Any]]:
    mine = {u.id: _staged(u) for u in at.uploads.all_staged() if _may(caller, u)}
    for kb in at.kb.all(caller.sees):
        for shelved in files(kb, at.uploads):
            mine.setdefault(shelved.id, _shelved(shelved))
    return list(mine.values())


def _find(at: Parts, caller: Caller, file_id: str) -> Upload | Shelved:
    """Raises UnknownFile, in the same words for what is missing and what is another's."""
    try:
        staged = at.uploads.staged(file_id)
    except UnknownFile:
        for kb in at.kb.all(caller.sees):
            for shelved in files(kb, at.uploads):
                if shelved.id == file_id:
                    return shelved
        raise
    if not _may(caller, staged):
        raise UnknownFile(f"there is no file {file_id!r}")
    return staged


def _may(caller: Caller, staged: Upload) -> bool:
    return staged.owner == caller.name or (caller.may("admin") and not caller.kbs)


def _staged(upload: Upload) -> dict[str, Any]:
    return _object(
        upload.id, upload.path.name, upload.size, upload.created_at, upload.purpose, "processed"
    )


def _shelved(file: Shelved) -> dict[str, Any]:
    status = {"completed": "processed", "failed": "error"}.get(file.status, "uploaded")
    return _object(file.id, file.name, file.size, file.created_at, "assistants", status)


def _object(
    file_id: str, name: str, size: int, created_at: int, purpose: str, status: str
) -> dict[str, Any]:
    return {
        "id": file_id,
        "object": "file",
        "bytes": size,
        "created_at": created_at,
        "filename": name,
        "purpose": purpose,
        "status": status,
    }
