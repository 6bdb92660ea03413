"""A question to the running server over HTTP, as `vademecum ask` puts it.

Knows the server's API only as any client does. Raises AskFailed with a sentence for the user.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from kb.errors import VademecumError

MODEL = "vademecum"


class AskFailed(VademecumError):
    """No answer, and why."""


@dataclass(slots=True)
class Answer:
    """The answer as it grows; whole when the stream ended."""

    text: str = ""
    citations: list[dict[str, Any]] = field(default_factory=list)
    knowledge: dict[str, Any] = field(default_factory=dict)

    def report(self) -> dict[str, Any]:
        return {
            "answer": self.text,
            "refused": bool(self.knowledge.get("refused", False)),
            "citations": self.citations,
            "knowledge": self.knowledge,
        }

    def sources(self) -> list[str]:
        """`[1] file name, page 2: "quote"`, each once; `(not verified)` behind a quote that does
        not support what it is cited for."""
        lines: dict[str, None] = {}
        for c in sorted(self.citations, key=lambda c: (c["number"], c.get("index", 0))):
            page = f", page {c['page']}" if c.get("page") else ""
            quote = " ".join(str(c.get("quote", "")).split())
            doubt = "" if c.get("verified", True) else " (not verified)"
            lines[f'[{c["number"]}] {c["filename"]}{page}: "{quote}"{doubt}'] = None
        return list(lines)


def ask(
    url: str,
    question: str,
    *,
    key: str = "",
    vector_store_ids: list[str] | None = None,
    on_text: Callable[[str], None] = lambda text: None,
    transport: httpx.BaseTransport | None = None,
) -> Answer:
    """Stream the answer; `on_text` gets each piece as it comes. Raises AskFailed."""
    body: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": question}],
        "stream": True,
    }
    if vector_store_ids:
        body["knowledge"] = {"vector_store_ids": vector_store_ids}
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    answer = Answer()
    try:
        # trust_env: a proxy for the world is none for this machine.
        with (
            httpx.Client(
                timeout=httpx.Timeout(300, connect=5), trust_env=False, transport=transport
            ) as client,
            client.stream(
                "POST", f"{url}/v1/chat/completions", json=body, headers=headers
            ) as reply,
        ):
            if reply.is_error:
                raise AskFailed(_reason(reply.status_code, reply.read()))
            for chunk in _chunks(reply):
                _take(chunk, answer, on_text)
    except httpx.ConnectError as error:
        raise AskFailed(f"no server answers at {url}: start it with `vademecum up`") from error
    except httpx.HTTPError as error:
        raise AskFailed(f"the server at {url} broke off: {error}") from error
    return answer


def _chunks(reply: httpx.Response) -> Iterator[dict[str, Any]]:
    for line in reply.iter_lines():
        if not line.startswith("data: ") or line == "data: [DONE]":
            continue
        try:
            yield json.loads(line.removeprefix("data: "))
        except ValueError as error:
            raise AskFailed("the server sent something that is no answer") from error


def _take(chunk: dict[str, Any], answer: Answer, on_text: Callable[[str], None]) -> None:
    if "error" in chunk:
        raise AskFailed(str(chunk["error"].get("message", "the server broke off")))
    if "knowledge" in chunk:
        answer.knowledge = chunk["knowledge"]
    for choice in chunk.get("choices", []):
        delta = choice.get("delta", {})
        answer.citations.extend(delta.get("annotations") or [])
        if text := delta.get("content"):
            answer.text += text
            on_text(text)


def _reason(status: int, body: bytes) -> str:
    try:
        message = str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = f"the server answered with status {status}"
    if status == httpx.codes.UNAUTHORIZED:
        message += " (set VADEMECUM_KEY to a key made with `vademecum keys create`)"
    return message
