"""The engine's stream, as it comes over HTTP."""

import asyncio
import json
import math
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from app.engine import Delta, HttpEngine
from kb.errors import EngineDown


def read(*chunks: Any) -> Sequence[Delta]:
    """What the engine yields where these come over the wire."""
    lines = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
    stream = httpx.Response(200, text=f"{lines}data: [DONE]\n\n")
    engine = HttpEngine("http://here", "base", transport=httpx.MockTransport(lambda _: stream))

    async def gather() -> list[Delta]:
        return [delta async for delta in engine.stream([], {})]

    return asyncio.run(gather())


def chunk(text: str, *logprobs: float) -> dict[str, Any]:
    tokens = [{"token": "x", "logprob": one} for one in logprobs]
    return {"choices": [{"delta": {"content": text}, "logprobs": {"content": tokens}}]}


def test_a_piece_is_as_likely_as_all_its_tokens() -> None:
    first, second = read(chunk("No", -0.5), chunk("where.", -0.25, -0.125))
    assert (first.text, first.logprob) == ("No", -0.5)
    assert (second.text, second.logprob) == ("where.", -0.375)


@pytest.mark.parametrize("told", [{}, {"logprobs": None}, {"logprobs": {"content": None}}])
def test_without_logprobs_it_is_not_known_how_likely(told: dict[str, Any]) -> None:
    (delta,) = read({"choices": [{"delta": {"content": "Yes"}} | told]})
    assert delta == Delta("Yes")


@pytest.mark.parametrize(
    "tokens",
    [
        [{}],
        [{"logprob": "often"}],
        [{"logprob": None}],
        [1],
        7,
        [{"logprob": 800.0}],
        [{"logprob": math.nan}],
    ],
)
def test_logprobs_that_are_none_end_the_answer_with_a_reason(tokens: Any) -> None:
    with pytest.raises(EngineDown, match="no answer"):
        read({"choices": [{"delta": {"content": "Yes"}, "logprobs": {"content": tokens}}]})
