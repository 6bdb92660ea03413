"""`vademecum ask` against a server that may do anything."""

import json
from typing import Any

import httpx
import pytest

from app.ask import Answer, AskFailed, ask

CITATION = {"number": 1, "index": 9, "filename": "hours.md", "page": 2, "quote": "opens\n at 8:15"}


def stream(*chunks: dict[str, Any]) -> httpx.Response:
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return httpx.Response(200, text="".join([*lines, "data: [DONE]\n\n"]))


def text(piece: str) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": piece}}]}


def asked(reply: httpx.Response | Exception, **more: Any) -> tuple[Answer, httpx.Request]:
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        if isinstance(reply, Exception):
            raise reply
        return reply

    answer = ask("http://here", "When?", transport=httpx.MockTransport(handle), **more)
    return answer, seen[0]


def test_the_answer_comes_piece_by_piece_and_whole_at_the_end() -> None:
    heard: list[str] = []
    last = {"choices": [{"delta": {"annotations": [CITATION]}}], "knowledge": {"refused": False}}
    answer, _ = asked(stream(text("At 8:15 "), text("[1]."), last), on_text=heard.append)
    assert heard == ["At 8:15 ", "[1]."]
    assert answer.report() == {
        "answer": "At 8:15 [1].",
        "refused": False,
        "citations": [CITATION],
        "knowledge": {"refused": False},
    }
    assert answer.sources() == ['[1] hours.md, page 2: "opens at 8:15"']


def test_a_source_that_is_cited_twice_is_listed_once_and_in_order() -> None:
    second = CITATION | {"number": 2, "page": None, "index": 1}
    answer = Answer(citations=[second, CITATION, CITATION | {"index": 30}])
    assert [line[:3] for line in answer.sources()] == ["[1]", "[2]"]
    assert answer.sources()[1].startswith("[2] hours.md: ")


def test_a_quote_that_does_not_support_its_sentence_is_marked() -> None:
    answer = Answer(citations=[CITATION | {"verified": False}])
    assert answer.sources() == ['[1] hours.md, page 2: "opens at 8:15" (not verified)']
    assert "verified" not in Answer(citations=[CITATION | {"verified": True}]).sources()[0]


def test_key_and_knowledge_base_are_sent() -> None:
    _, request = asked(stream(), key="vk-1", vector_store_ids=["vs_1"])
    assert request.headers["Authorization"] == "Bearer vk-1"
    assert json.loads(request.content)["knowledge"] == {"vector_store_ids": ["vs_1"]}


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (httpx.Response(503, json={"error": {"message": "the engine is down"}}), "engine is down"),
        (httpx.Response(401, json={"error": {"message": "no key"}}), "VADEMECUM_KEY"),
        (httpx.Response(502, text="<html>"), "status 502"),
        (stream(text("At"), {"error": {"message": "it broke off"}}), "it broke off"),
        (httpx.Response(200, text="data: {\n\n"), "no answer"),
        (httpx.ConnectError("refused"), "`vademecum up`"),
        (httpx.ReadTimeout("slow"), "broke off"),
    ],
)
def test_every_failure_is_one_sentence(reply: httpx.Response | Exception, message: str) -> None:
    with pytest.raises(AskFailed, match=message):
        asked(reply)
