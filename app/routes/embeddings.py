"""POST /v1/embeddings: the knowledge base's embedder for others."""

import base64
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from app.errors import BadRequest, UnknownModel
from app.gate import Chatting
from app.parts import parts
from app.schemas import Embeddings

router = APIRouter()


@router.post("/v1/embeddings")
async def embed(body: Embeddings, request: Request, caller: Chatting) -> dict[str, Any]:
    at = parts(request)
    embedder = at.kb.embedder
    if body.model not in ("vademecum", embedder.name):
        raise UnknownModel(f"there is no embedder {body.model!r}; there is {embedder.name}")
    if body.dimensions not in (None, embedder.dimensions):
        raise BadRequest(f"the embedder has {embedder.dimensions} dimensions", "dimensions")
    texts = [body.input] if isinstance(body.input, str) else body.input
    if not all(texts):
        raise BadRequest("a text to embed must not be empty", "input")
    encode = embedder.queries if body.input_type == "query" else embedder.passages
    vectors = await run_in_threadpool(encode, texts)
    packed = body.encoding_format == "base64"
    rows = [
        {
            "object": "embedding",
            "index": i,
            "embedding": base64.b64encode(v.tobytes()).decode() if packed else v.tolist(),
        }
        for i, v in enumerate(vectors)
    ]
    return {
        "object": "list",
        "data": rows,
        "model": embedder.name,
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
    }
