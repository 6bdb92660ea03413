"""An engine is asked as OpenAI's API wants it, and one that is down is said to be down."""

import json

import httpx
import pytest

from finetune.chat import HttpChat
from kb.errors import EngineDown

ASKED = [{"role": "user", "content": "Why?"}]


def chat(reply: httpx.Response, seen: list[httpx.Request]) -> HttpChat:
    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return reply

    return HttpChat("http://engine:1/v1/", "m", httpx.MockTransport(answer), key="k")


def test_a_reply_is_asked_for_greedily_and_with_a_limit() -> None:
    seen: list[httpx.Request] = []
    reply = httpx.Response(200, json={"choices": [{"message": {"content": "Because."}}]})
    assert chat(reply, seen).say(ASKED, 9) == "Because."
    assert str(seen[0].url) == "http://engine:1/v1/chat/completions"
    assert seen[0].headers["authorization"] == "Bearer k"
    sent = {"model": "m", "messages": ASKED, "max_tokens": 9, "temperature": 0}
    assert json.loads(seen[0].content) == sent


def test_our_own_server_is_asked_for_its_model_alone() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"choices": [{"message": {"content": "Because."}}]})

    HttpChat("http://server:1", "vademecum", httpx.MockTransport(answer)).say(ASKED, 9)
    assert json.loads(seen[0].content)["knowledge"] == {"enabled": False}
    assert "authorization" not in seen[0].headers


@pytest.mark.parametrize(
    "reply",
    [
        httpx.Response(500),
        httpx.Response(200, json={"choices": []}),
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json=[1]),
    ],
)
def test_what_is_no_answer_means_that_the_engine_is_down(reply: httpx.Response) -> None:
    with pytest.raises(EngineDown, match="engine at http://engine:1"):
        chat(reply, []).say(ASKED, 9)
