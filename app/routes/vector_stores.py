"""/v1/vector_stores: the knowledge bases, and searching them."""

import logging
import secrets
import time
from typing import Any, get_args

from fastapi import APIRouter, Request

from app.access import staged, store
from app.errors import BadRequest, Forbidden
from app.gate import Administering, Chatting
from app.paging import Page
from app.parts import Parts, parts
from app.schemas import NewVectorStore, Search
from app.shelf import summary
from kb.catalog import Listed
from kb.errors import StoreBroken, StoreDown
from kb.ledger import Status
from kb.records import Hit

router = APIRouter()
log = logging.getLogger(__name__)


@router.get("/v1/vector_stores")
def list_all(request: Request, caller: Chatting, paging: Page) -> dict[str, Any]:
    at = parts(request)
    return paging.page([_object(at, one) for one in at.kb.listed(caller.sees)])


@router.post("/v1/vector_stores")
def create(body: NewVectorStore, request: Request, caller: Administering) -> dict[str, Any]:
    at = parts(request)
    if caller.kbs:
        raise Forbidden("this key is bound to knowledge bases and cannot make another")
    uploads = [staged(at, file_id, caller) for file_id in body.file_ids]
    name = body.name or f"store-{secrets.token_hex(4)}"
    one = at.kb.catalog.add(name, at.kb.embedder.name, int(time.time()))
    for upload in uploads:
        at.uploads.attach(upload, one.name)
    return _object(at, one)


@router.get("/v1/vector_stores/{store_id}")
def get(store_id: str, request: Request, caller: Chatting) -> dict[str, Any]:
    at = parts(request)
    return _object(at, at.kb.find(store_id, caller.sees))


@router.delete("/v1/vector_stores/{store_id}")
def delete(store_id: str, request: Request, caller: Administering) -> dict[str, Any]:
    at = parts(request)
    one = at.kb.find(store_id, caller.sees)
    at.kb.catalog.remove(one.id)
    at.batches.forget(one.id)
    return {"id": one.id, "object": "vector_store.deleted", "deleted": True}


@router.post("/v1/vector_stores/{store_id}/search")
def search(store_id: str, body: Search, request: Request, caller: Chatting) -> dict[str, Any]:
    at = parts(request)
    if not all(query.strip() for query in body.query):
        raise BadRequest("the query is empty", "query")
    if sum(map(len, body.query)) > at.settings.max_question_chars:
        raise BadRequest("the query is too long", "query")
    kb, _ = store(at, store_id, caller)
    found = kb.search(
        "\n".join(body.query),
        body.max_num_results,
        min_generation=body.min_generation,
        mode=body.mode,
    )
    least = body.ranking_options.score_threshold if body.ranking_options else None
    return {
        "object": "vector_store.search_results.page",
        "search_query": body.query,
        "data": [_hit(hit) for hit in found.hits if least is None or hit.score >= least],
        "has_more": False,
        "next_page": None,
        "generation": found.generation,
    }


def _hit(hit: Hit) -> dict[str, Any]:
    return {
        "file_id": hit.file_id,
        "filename": hit.filename,
        "score": hit.score,
        "attributes": {},
        "content": [{"type": "text", "text": hit.chunk.text}],
        "page": hit.chunk.page,
        "start": hit.chunk.start,
        "end": hit.chunk.end,
        "heading": hit.chunk.heading,
    }


def _object(at: Parts, one: Listed) -> dict[str, Any]:
    counts: dict[str, int] = dict.fromkeys(get_args(Status), 0)
    size, generation = 0, None
    try:
        kb = at.kb.get(one.id)
        (counts, size), generation = summary(kb, at.uploads), kb.store.generation()
    except (StoreBroken, StoreDown) as error:  # it exists all the same, and the others are listed
        log.debug("listed without its files: %s", error)
    return {
        "id": one.id,
        "object": "vector_store",
        "name": one.name,
        "created_at": one.created_at,
        "status": "in_progress" if counts.get("in_progress") else "completed",
        "file_counts": {**counts, "total": sum(counts.values())},
        "usage_bytes": size,
        "metadata": {},
        "generation": generation,
    }
