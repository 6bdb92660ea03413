"""Whether the process runs, whether a question can be answered, and the metrics."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.concurrency import run_in_threadpool

from app.gate import Chatting
from app.knowledge import KnowledgeBases, is_followed
from app.parts import parts
from kb.errors import VademecumError

router = APIRouter()


@router.get("/health/live")
async def live() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/health/ready")
async def ready(request: Request) -> JSONResponse:
    """503 names the parts that are not ready."""
    at = parts(request)
    knows, followed = await run_in_threadpool(_knowledge, at.kb)
    state = {"engine": await at.engine.ready(), "knowledge_base": knows, "ingest": followed}
    missing = [part for part, is_ready in state.items() if not is_ready]
    body: dict[str, Any] = {"status": "not ready" if missing else "ok", "parts": state}
    return JSONResponse(body, 503 if missing else 200)


@router.get("/metrics")
async def metrics(request: Request, caller: Chatting) -> Response:
    at = parts(request)
    for kb in await run_in_threadpool(at.kb.all):
        at.metrics.generation.labels(kb.name).set(kb.store.generation())
    return Response(at.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _knowledge(kb: KnowledgeBases) -> tuple[bool, bool]:
    """Whether a knowledge base can be searched, and whether ingest follows all that exist."""
    listed = kb.listed()
    try:
        opened = bool(kb.all())
    except VademecumError:  # logged where it is opened; here it is an answer, not an accident
        opened = False
    return opened, bool(listed) and all(is_followed(one) for one in listed)
