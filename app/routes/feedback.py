"""POST /v1/feedback: what a user thought of an answer, and what it should have been."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from app.gate import Chatting
from app.parts import parts
from app.schemas import Rated

router = APIRouter()


@router.post("/v1/feedback")
async def rate(body: Rated, request: Request, caller: Chatting) -> dict[str, Any]:
    await run_in_threadpool(
        parts(request).feedback.rate,
        body.completion_id,
        caller,
        body.rating,
        body.comment,
        body.correction,
    )
    return {"object": "feedback", "completion_id": body.completion_id, "rating": body.rating}
