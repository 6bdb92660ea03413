"""/admin/releases: what there is, and which one answers. A promotion is answered when done."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from app.auth import Caller
from app.errors import Forbidden
from app.gate import Administering
from app.parts import Parts, parts
from app.schemas import Promotion

router = APIRouter(prefix="/admin/releases")


@router.get("")
async def releases(request: Request, caller: Administering) -> dict[str, Any]:
    return await _told(parts(request))


@router.post("/rollback")
async def rollback(request: Request, caller: Administering) -> dict[str, Any]:
    _may_change(caller)
    at = parts(request)
    await at.releases.rollback()
    return await _told(at)


@router.post("/{release}/promote")
async def promote(
    release: str, request: Request, caller: Administering, body: Promotion | None = None
) -> dict[str, Any]:
    _may_change(caller)
    at = parts(request)
    await at.releases.promote(release, force=body.force if body else False)
    return await _told(at)


def _may_change(caller: Caller) -> None:
    if caller.kbs:
        raise Forbidden("a release answers for all knowledge bases; your key is bound to some")


async def _told(at: Parts) -> dict[str, Any]:
    rows = await run_in_threadpool(at.releases.rows)
    return {"object": "list", "current": at.lineup.current.release, "data": rows}
