"""POST /v1/chat/completions: decode, ask `app.answer`, encode as OpenAI does; plain or streamed.

With knowledge (the default) the server writes the prompt: the client's system messages are dropped,
so that no client can talk the rules away. With `"knowledge": {"enabled": false}` all messages go to
the model as they are.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from app.answer import Answerer, Asked, Event
from app.auth import Caller
from app.completion import Completion
from app.errors import BadRequest, describe
from app.feedback import Answered
from app.gate import Chatting
from app.hangup import unless_gone
from app.parts import Parts, parts
from app.schemas import Chat, Knowledge, Message

router = APIRouter()
_SAMPLING = ("top_p", "stop", "seed", "frequency_penalty", "presence_penalty")


@router.post("/v1/chat/completions", response_model=None)
async def complete(body: Chat, request: Request, caller: Chatting) -> Response:
    at = parts(request)
    serving = at.lineup.pick(body.model)
    completion = Completion(body.model)
    async with AsyncExitStack() as stack:
        stack.enter_context(at.places.take())
        stack.enter_context(serving.at_work())
        answer = serving.watch(await _events(body, at, caller, serving.answerer))
        events = await stack.enter_async_context(aclosing(at.metrics.watch(answer)))
        if not body.stream:
            whole = completion.whole(await unless_gone(request, _all(events)))
            _remember(completion, at, caller)
            return JSONResponse(whole)
        first = await unless_gone(request, _next(events))  # an error still has its own status
        usage = body.stream_options is not None and body.stream_options.include_usage
        told = partial(_remember, completion, at, caller)
        return _Stream(_chunks(completion, first, events, usage, told), stack.pop_all())


class _Stream(StreamingResponse):
    """Lets go of its place and of the engine however the reply ends, a client that hangs up
    before the first byte included."""

    def __init__(self, chunks: AsyncGenerator[str, None], stack: AsyncExitStack) -> None:
        super().__init__(
            chunks, media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
        )
        self._chunks = chunks
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._stack, aclosing(self._chunks):
            await super().__call__(scope, receive, send)


async def _chunks(
    completion: Completion,
    first: Event,
    events: AsyncGenerator[Event, None],
    usage: bool,
    told: Callable[[], None],
) -> AsyncGenerator[str, None]:
    """Server-sent events. After the first byte an error can only be told as a chunk. `told` is
    called when all is said."""
    try:
        for chunk in completion.opening(first, usage=usage):
            yield completion.sse(chunk)
        async for event in events:
            for chunk in completion.chunks(event, usage=usage):
                yield completion.sse(chunk)
        told()
    except Exception as error:  # noqa: BLE001 - what nobody foresaw is logged by `describe`
        yield completion.sse(describe(error))
    yield "data: [DONE]\n\n"


def _remember(completion: Completion, at: Parts, caller: Caller) -> None:
    """For whoever wants to say what the answer was worth."""
    if (end := completion.end) is not None:
        answered = Answered(end.prompt, completion.text, end.knowledge)
        at.feedback.remember(completion.id, caller, answered)


async def _all(events: AsyncGenerator[Event, None]) -> list[Event]:
    return [event async for event in events]


async def _next(events: AsyncGenerator[Event, None]) -> Event:
    return await anext(events)


async def _events(
    body: Chat, at: Parts, caller: Caller, answerer: Answerer
) -> AsyncGenerator[Event, None]:
    options = _options(body, at.settings.max_answer_tokens)
    wanted = body.knowledge or Knowledge()
    if not wanted.enabled:
        _must_fit(body.messages, at.settings.max_question_chars)
        messages = [{"role": _role(m.role), "content": m.content} for m in body.messages]
        return answerer.passthrough(messages, options)
    turns = [m for m in body.messages if m.role in ("user", "assistant")]
    _must_fit(turns, at.settings.max_question_chars)
    if not turns or turns[-1].role != "user" or not turns[-1].content.strip():
        raise BadRequest("the last message must be the user's question", "messages")
    stores = await run_in_threadpool(at.kb.chosen, wanted.vector_store_ids, caller.sees)
    asked = Asked(
        question=turns[-1].content,
        history=tuple({"role": m.role, "content": m.content} for m in turns[:-1]),
        options=options,
        top_k=wanted.top_k or at.settings.top_k,
        min_generation=wanted.min_generation,
    )
    return answerer.answer(asked, stores)


def _must_fit(messages: Sequence[Message], most: int) -> None:
    if sum(len(message.content) for message in messages) > most:
        raise BadRequest(f"the messages have more than {most} characters", "messages")


def _options(body: Chat, most: int) -> dict[str, Any]:
    """The engine's sampling options: greedy unless asked otherwise."""
    given = {name: value for name in _SAMPLING if (value := getattr(body, name)) is not None}
    tokens = body.max_completion_tokens or body.max_tokens or most
    temperature = body.temperature if body.temperature is not None else 0.0
    return {**given, "max_tokens": tokens, "temperature": temperature}


def _role(role: str) -> str:
    return "system" if role == "developer" else role
