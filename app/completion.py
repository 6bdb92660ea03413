"""Events of an answer -> OpenAI's chat completion, whole or in chunks. Pure.

Beside OpenAI's fields: `message.annotations` with what a citation says, and `knowledge`.
"""

import json
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from app.answer import Cited, Event, Finished, Text
from kb.records import Citation

MODEL = "vademecum"
"""The name under which the server offers its current release."""


class Completion:
    """One answer on its way to a client."""

    def __init__(self, model: str, created: int | None = None) -> None:
        self._head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()) if created is None else created,
            "model": model,
        }
        self._annotations: list[dict[str, Any]] = []
        self.text = ""
        """What has been said so far."""
        self.end: Finished | None = None
        """How it ended, once it has."""

    @property
    def id(self) -> str:
        return str(self._head["id"])

    def whole(self, events: Iterable[Event]) -> dict[str, Any]:
        """`chat.completion`."""
        for event in events:
            self._note(event)
        end = self.end
        assert end is not None, "an answer ends with Finished"
        message = {
            "role": "assistant",
            "content": self.text,
            "refusal": None,
            "annotations": self._annotations,
        }
        choice = {"index": 0, "message": message, "finish_reason": end.reason, "logprobs": None}
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [choice],
            "usage": dict(end.usage),
            **({"knowledge": end.knowledge} if end.knowledge else {}),
        }

    def opening(self, first: Event, *, usage: bool) -> Iterator[dict[str, Any]]:
        """The role's chunk, then the first event's."""
        yield self._chunk({"role": "assistant", "content": ""})
        yield from self.chunks(first, usage=usage)

    def chunks(self, event: Event, *, usage: bool) -> Iterator[dict[str, Any]]:
        """`chat.completion.chunk`s. The last event's carries all annotations and `knowledge`."""
        self._note(event)
        if isinstance(event, Text):
            yield self._chunk({"content": event.text})
        elif isinstance(event, Finished):
            yield from self._closing(event, usage)

    def _note(self, event: Event) -> None:
        if isinstance(event, Text):
            self.text += event.text
        elif isinstance(event, Cited):
            self._annotations.append(annotation(event.citation))
        else:
            self.end = event

    def _closing(self, end: Finished, usage: bool) -> Iterator[dict[str, Any]]:
        last = self._chunk({"annotations": self._annotations}, end.reason)
        yield {**last, "knowledge": end.knowledge} if end.knowledge else last
        if usage:
            yield {**self._chunk({}), "choices": [], "usage": dict(end.usage)}

    def _chunk(self, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice]}

    @staticmethod
    def sse(chunk: dict[str, Any]) -> str:
        return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"


def annotation(citation: Citation) -> dict[str, Any]:
    """A citation as a client sees it."""
    return {"type": "file_citation", **asdict(citation)}
