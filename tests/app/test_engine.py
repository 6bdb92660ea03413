"""The engine's stream, as it comes over HTTP."""

import asyncio
import json
import math
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx
import pytest

from app.engine import Delta, HttpEngine
from app.errors import describe
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


class _Forgetful(BaseHTTPRequestHandler):
    """Keeps a connection open, and lets it go when something comes on it again."""

    protocol_version = "HTTP/1.1"
    spoke = False

    def do_POST(self) -> None:
        if self.spoke:
            self.close_connection = True
            return
        self.spoke = True
        self.rfile.read(int(self.headers["Content-Length"]))
        text = f"data: {json.dumps(chunk('Yes'))}\n\ndata: [DONE]\n\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        return


def test_no_question_is_lost_on_a_connection_that_the_engine_lets_go() -> None:
    async def ask_twice(url: str) -> list[str]:
        engine = HttpEngine(url, "base")
        try:
            return [delta.text for _ in range(2) async for delta in engine.stream([], {})]
        finally:
            await engine.close()

    with ThreadingHTTPServer(("127.0.0.1", 0), _Forgetful) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            assert asyncio.run(ask_twice(url)) == ["Yes", "Yes"]
        finally:
            server.shutdown()
            thread.join()


def test_an_engine_that_is_down_is_logged_with_its_cause_and_told_without(
    caplog: pytest.LogCaptureFixture,
) -> None:
    down = EngineDown("the language model does not answer right now")
    down.__cause__ = httpx.ConnectError("nobody listens at engine:8001")
    assert "nobody listens" not in json.dumps(describe(down))
    assert "nobody listens at engine:8001" in caplog.text
