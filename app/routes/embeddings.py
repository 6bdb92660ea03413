"""POST /v1/embeddings: the knowledge base's embedder for others."""

import base64
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from app.completion import MODEL
from app.errors import BadRequest, UnknownModel
from app.gate import Chatting
from app.parts import parts
from app.schemas import Embeddings
from kb.embedding import Embedder, Vectors
from kb.models import shown
from kb.words import estimate_tokens

router = APIRouter()
_BATCH = 16


@router.post("/v1/embeddings")
async def embed(body: Embeddings, request: Request, caller: Chatting) -> dict[str, Any]:
    embedder = parts(request).kb.embedder
    name = shown(embedder.name)
    if body.model not in (MODEL, name):
        raise UnknownModel(f"there is no embedder {body.model!r}; there is {name!r}")
    if body.dimensions not in (None, embedder.dimensions):
        raise BadRequest(f"the embedder has {embedder.dimensions} dimensions", "dimensions")
    if not all(body.input):
        raise BadRequest("a text to embed must not be empty", "input")
    vectors = await _embed(embedder, body.input, is_query=body.input_type == "query")
    packed = body.encoding_format == "base64"
    rows = [
        {
            "object": "embedding",
            "index": i,
            "embedding": base64.b64encode(v.tobytes()).decode() if packed else v.tolist(),
        }
        for i, v in enumerate(vectors)
    ]
    tokens = sum(map(estimate_tokens, body.input))
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": rows, "model": name, "usage": usage}


async def _embed(embedder: Embedder, texts: list[str], *, is_query: bool) -> Vectors:
    """In small batches: questions wait for the same embedder, and pass in between."""
    encode = embedder.queries if is_query else embedder.passages
    groups = [texts[i : i + _BATCH] for i in range(0, len(texts), _BATCH)]
    return np.concatenate([await run_in_threadpool(encode, group) for group in groups])
