"""/v1/vector_stores: the knowledge bases, and searching them."""

import time
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from app.auth import Caller
from app.errors import BadRequest, Forbidden
from app.gate import Administering, Chatting
from app.parts import Parts, parts
from app.schemas import NewVectorStore, Search
from kb.catalog import Listed
from kb.records import Hit
from kb.search import KnowledgeBase

router = APIRouter()
_COUNTED = ("in_progress", "completed", "cancelled", "failed")


@router.get("/v1/vector_stores")
async def list_all(request: Request, caller: Chatting) -> dict[str, Any]:
    at = parts(request)
    found = await run_in_threadpool(lambda: [_store(at, one) for one in at.kb.listed(caller.sees)])
    ends = {"first_id": found[0]["id"], "last_id": found[-1]["id"]} if found else {}
    return {"object": "list", "data": found, "has_more": False, **ends}


@router.post("/v1/vector_stores")
async def create(body: NewVectorStore, request: Request, caller: Administering) -> dict[str, Any]:
    at = parts(request)
    if caller.kbs:
        raise Forbidden("this key is bound to knowledge bases and cannot make another")
    if not body.name:
        raise BadRequest("a vector store needs a name", "name")
    return await run_in_threadpool(_create, at, body.name, body.file_ids)


@router.get("/v1/vector_stores/{store_id}")
async def get(store_id: str, request: Request, caller: Chatting) -> dict[str, Any]:
    at = parts(request)
    return await run_in_threadpool(lambda: _store(at, at.kb.find(store_id, caller.sees)))


@router.delete("/v1/vector_stores/{store_id}")
async def delete(store_id: str, request: Request, caller: Administering) -> dict[str, Any]:
    at = parts(request)
    one = await run_in_threadpool(at.kb.find, store_id, caller.sees)
    await run_in_threadpool(at.kb.catalog.remove, one.id)
    return {"id": one.id, "object": "vector_store.deleted", "deleted": True}


@router.post("/v1/vector_stores/{store_id}/search")
async def search(store_id: str, body: Search, request: Request, caller: Chatting) -> dict[str, Any]:
    at = parts(request)
    queries = [body.query] if isinstance(body.query, str) else body.query
    if not all(query.strip() for query in queries):
        raise BadRequest("the query is empty", "query")
    if sum(map(len, queries)) > at.settings.max_question_chars:
        raise BadRequest("the query is too long", "query")
    kb = await run_in_threadpool(at.kb.get, store_id, caller.sees)
    found = await run_in_threadpool(_search, kb, "\n".join(queries), body)
    return {
        "object": "vector_store.search_results.page",
        "search_query": queries,
        "data": found,
        "has_more": False,
        "next_page": None,
    }


def _search(kb: KnowledgeBase, query: str, body: Search) -> list[dict[str, Any]]:
    found = kb.search(
        query, body.max_num_results, min_generation=body.min_generation, mode=body.mode
    )
    least = body.ranking_options.score_threshold if body.ranking_options else None
    return [_hit(hit) for hit in found.hits if least is None or hit.score >= least]


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


def _create(at: Parts, name: str, file_ids: list[str]) -> dict[str, Any]:
    staged = [at.uploads.staged(file_id) for file_id in file_ids]
    one = at.kb.catalog.add(name, at.kb.embedder.name, int(time.time()))
    for upload in staged:
        at.uploads.attach(upload, one.name)
    return _store(at, one)


def _store(at: Parts, one: Listed) -> dict[str, Any]:
    kb = at.kb.get(one.id)
    counts = kb.ledger.counts()
    numbers = {status: counts.get(status, 0) for status in _COUNTED}
    return {
        "id": one.id,
        "object": "vector_store",
        "name": one.name,
        "created_at": one.created_at,
        "status": "in_progress" if numbers["in_progress"] else "completed",
        "file_counts": {**numbers, "total": sum(numbers.values())},
        "usage_bytes": sum(file.size for file in kb.ledger.all()),
        "metadata": {},
        "generation": kb.store.generation(),
    }


def visible(at: Parts, store_id: str, caller: Caller) -> tuple[KnowledgeBase, Listed]:
    """A knowledge base that this caller may see, opened. Raises UnknownKnowledgeBase."""
    return at.kb.get(store_id, caller.sees), at.kb.find(store_id, caller.sees)
