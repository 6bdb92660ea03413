"""A running OpenAI-compatible engine, asked one thing at a time. Knows nothing of passages.

A fake with the same contract ships here.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import httpx

from kb.errors import EngineDown

SERVED = "vademecum"
"""The name under which our own server answers."""
KEY = "VADEMECUM_ENGINE_KEY"
"""The environment's name of the key that an engine wants."""


class Chat(Protocol):
    def say(self, messages: Sequence[dict[str, str]], most: int) -> str:
        """The reply, at most so many tokens, always the same one. Raises EngineDown."""
        ...


class HttpChat:
    """`url` as the engine's base; greedy decoding, so that a run can be repeated. Our own server
    would answer from its passages: it is asked for its model alone."""

    def __init__(
        self, url: str, model: str, transport: httpx.BaseTransport | None = None, key: str = ""
    ) -> None:
        self._url = url.rstrip("/").removesuffix("/v1")
        self._model = model
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._transport = transport

    def say(self, messages: Sequence[dict[str, str]], most: int) -> str:
        body = {"model": self._model, "messages": messages, "max_tokens": most, "temperature": 0}
        if self._model == SERVED:
            body["knowledge"] = {"enabled": False}
        try:
            # A connection an answer, which takes far longer; none is left open.
            with httpx.Client(timeout=120, trust_env=False, transport=self._transport) as client:
                reply = client.post(
                    f"{self._url}/v1/chat/completions", json=body, headers=self._headers
                )
            reply.raise_for_status()
            return str(reply.json()["choices"][0]["message"]["content"] or "")
        except (httpx.HTTPError, KeyError, IndexError, TypeError, ValueError) as error:
            raise EngineDown(f"the engine at {self._url} did not answer: {error}") from error


class FakeChat:
    """Replies as a function of the last message says. For tests."""

    def __init__(self, reply: Callable[[str], str]) -> None:
        self._reply = reply

    def say(self, messages: Sequence[dict[str, str]], most: int) -> str:
        return self._reply(messages[-1]["content"])
