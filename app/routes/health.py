"""Whether the process runs, whether a question can be answered, and the metrics."""

import logging
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.concurrency import run_in_threadpool

from app.gate import Chatting
from app.knowledge import KnowledgeBases, Sees, is_followed
from app.parts import parts
from kb import latency
from kb.errors import StoreBroken, StoreDown
from kb.unwatched import unwatched

router = APIRouter()
log = logging.getLogger(__name__)


@router.get("/health/live")
async def live() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/health/ready")
async def ready(request: Request) -> JSONResponse:
    """503 names the parts that are not ready."""
    at = parts(request)
    knows, followed = await run_in_threadpool(_knowledge, at.kb)
    state = {
        "engine": await at.lineup.current.engine.ready(),
        "knowledge_base": knows,
        "ingest": followed,
    }
    missing = [part for part, is_ready in state.items() if not is_ready]
    body: dict[str, Any] = {"status": "not ready" if missing else "ok", "parts": state}
    return JSONResponse(body, 503 if missing else 200)


@router.get("/metrics")
async def metrics(request: Request, caller: Chatting) -> Response:
    at = parts(request)
    counted = await run_in_threadpool(_counted, at.kb, caller.sees)
    text = at.metrics.text(*counted)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


def _knowledge(kb: KnowledgeBases) -> tuple[bool, bool]:
    """Whether a knowledge base can be searched, and whether ingest follows one.

    One that was made a moment ago, or whose embedder is gone, does not make the rest unready.
    """
    try:
        return bool(kb.all()), any(is_followed(one) for one in kb.listed())
    except (StoreBroken, StoreDown) as error:
        log.debug("not ready: %s", error)  # said aloud where it was opened
        return False, False


def _counted(
    kb: KnowledgeBases, sees: Sees
) -> tuple[dict[str, int], dict[str, list[latency.Histogram]], dict[str, int]]:
    """What the stores tell, by knowledge base: generations, how long files took, and how many
    folders are not watched live."""
    try:
        stores = {one.name: one.store for one in kb.all(sees)}
        return (
            {name: store.generation() for name, store in stores.items()},
            {name: latency.histograms(store) for name, store in stores.items()},
            {name: sum(unwatched(store).values()) for name, store in stores.items()},
        )
    except (StoreBroken, StoreDown) as error:
        log.debug("no generation to show: %s", error)
        return {}, {}, {}
