"""The language model as an HTTP peer: the only file that speaks to vLLM, which is never imported.

Knows OpenAI's chat completions and nothing of documents. A fake with the same contract ships here.
"""

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from kb.errors import BadData, EngineDown

_ROUNDING = 1e-3
"""How far above 0 a log-probability may come to stand."""
_SAID = 300
"""Characters of what vLLM says of an adapter; some of it prints whole files."""
Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of generated text; the last one carries the reason it ended and the token counts.
    `logprob`: the log-probability of the piece, where `logprobs` was among the options."""

    text: str = ""
    finish_reason: str | None = None
    usage: Mapping[str, int] | None = None
    logprob: float | None = None


class Engine(Protocol):
    """What the server asks of a language model."""

    @property
    def model(self) -> str:
        """The base model's name, as `/v1/models` shows it."""
        ...

    def stream(
        self, messages: Sequence[Message], options: Mapping[str, Any]
    ) -> AsyncGenerator[Delta, None]:
        """Generate. `options` are OpenAI's sampling fields. Raises EngineDown, BadData."""
        ...

    async def ready(self) -> bool:
        """Whether a question can be answered now."""
        ...

    async def close(self) -> None: ...


class NoSuchModel(EngineDown):
    """The engine runs and does not have the model that it is asked for."""


class HttpEngine:
    """An OpenAI-compatible server at `url`, asked for `model`; `shown` is how users name it."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        shown: str = "",
        key: str = "",
        timeout: float = 120.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._asked = model
        self._shown = shown or model
        self._client = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(timeout, connect=5.0),
            # A connection a question: one that is kept is lost with what is asked on it when the
            # engine lets it go at that moment (vLLM does after 5 s, as httpx would).
            limits=httpx.Limits(max_keepalive_connections=0),
            transport=transport,
        )

    @property
    def model(self) -> str:
        return self._shown

    async def ready(self) -> bool:
        try:
            reply = await self._client.get("/v1/models", timeout=2.0)
        except httpx.HTTPError:
            return False
        return reply.status_code == httpx.codes.OK

    async def close(self) -> None:
        await self._client.aclose()

    async def names(self) -> list[str]:
        """The models that the engine has. Raises EngineDown."""
        try:
            reply = await self._client.get("/v1/models", timeout=5.0)
            return [str(one["id"]) for one in reply.raise_for_status().json()["data"]]
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise EngineDown("the language model does not answer right now") from error

    async def load_adapter(self, name: str, folder: str) -> None:
        """Load a LoRA adapter from a folder of the engine's machine. Raises EngineDown, which says
        why: whatever is wrong, this engine cannot be asked for it now."""
        body = {"lora_name": name, "lora_path": folder}
        reply = await self._post("/v1/load_lora_adapter", body)
        if not reply.is_error:
            return
        reason = _reason(reply.content)
        if reply.status_code == httpx.codes.NOT_FOUND and not reason:
            # vLLM has this route only where it is allowed; for a folder it cannot see it has words.
            raise EngineDown(
                "the engine takes no adapters while it runs: start vLLM with --enable-lora and"
                " VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, or set [engine] runtime_adapters = false"
            )
        reason = reason.replace(folder, "its folder below engine/adapters")  # no path for clients
        said = reason[:_SAID] or f"status {reply.status_code}"
        raise EngineDown(f"the engine does not load the adapter: {said}")

    async def unload_adapter(self, name: str) -> None:
        """Raises EngineDown, BadData."""
        reply = await self._post("/v1/unload_lora_adapter", {"lora_name": name})
        if reply.is_error:
            raise _refusal(reply.status_code, reply.content)

    async def _post(self, path: str, body: Mapping[str, Any]) -> httpx.Response:
        try:
            return await self._client.post(path, json=body)
        except httpx.HTTPError as error:
            raise EngineDown("the language model does not answer right now") from error

    async def stream(
        self, messages: Sequence[Message], options: Mapping[str, Any]
    ) -> AsyncGenerator[Delta, None]:
        body = {
            **options,
            "model": self._asked,
            "messages": list(messages),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        try:
            async with self._client.stream("POST", "/v1/chat/completions", json=body) as reply:
                if reply.is_error:
                    raise _refusal(reply.status_code, await reply.aread())
                async for line in reply.aiter_lines():
                    if line.startswith("data: ") and line != "data: [DONE]":
                        yield _delta(line.removeprefix("data: "))
        except httpx.HTTPError as error:
            raise EngineDown("the language model does not answer right now") from error


def _delta(data: str) -> Delta:
    try:
        chunk = json.loads(data)
        if "error" in chunk:
            raise EngineDown("the language model broke off")
        choice = (chunk.get("choices") or [{}])[0]
        usage = chunk.get("usage")
        tokens = (choice.get("logprobs") or {}).get("content")
        logprob = sum(float(token["logprob"]) for token in tokens) if tokens else None
        if logprob is not None and not logprob <= _ROUNDING:
            raise ValueError("no log-probability")  # NaN too
        return Delta(
            (choice.get("delta") or {}).get("content") or "",
            choice.get("finish_reason"),
            {k: v for k, v in usage.items() if isinstance(v, int)} if usage else None,
            logprob,
        )
    except (ValueError, AttributeError, LookupError, TypeError) as error:
        raise EngineDown("the language model sent something that is no answer") from error


def _refusal(status: int, body: bytes) -> Exception:
    if status == httpx.codes.NOT_FOUND:
        return NoSuchModel("the language model is not loaded")
    if status >= 500 or status in (401, 403, 429):
        return EngineDown(f"the language model refused to answer (status {status})")
    reason = _reason(body) or f"status {status}"
    return BadData(f"the language model cannot take this request: {reason}")


def _reason(body: bytes) -> str:
    """What vLLM says of an error, on one line; empty where it is not its own."""
    try:
        return " ".join(str(json.loads(body)["error"]["message"]).split())
    except (ValueError, KeyError, TypeError):
        return ""


class FakeEngine:
    """Streams a fixed reply word by word, each as likely as `logprob` says, and remembers what it
    was asked. For tests."""

    def __init__(
        self,
        reply: str = "It is as the references say.",
        *,
        up: bool = True,
        name: str = "fake",
        logprob: float | None = None,
    ) -> None:
        self.reply = reply
        self.logprob = logprob
        self.up = up
        self._name = name
        self.asked: list[tuple[list[Message], dict[str, Any]]] = []

    @property
    def model(self) -> str:
        return self._name

    async def ready(self) -> bool:
        return self.up

    async def close(self) -> None:
        return None

    async def stream(
        self, messages: Sequence[Message], options: Mapping[str, Any]
    ) -> AsyncGenerator[Delta, None]:
        if not self.up:
            raise EngineDown("the language model does not answer right now")
        self.asked.append((list(messages), dict(options)))
        pieces = self.reply.split(" ")
        for i, piece in enumerate(pieces):
            yield Delta(piece if i == 0 else f" {piece}", logprob=self.logprob)
        usage = {"prompt_tokens": 10, "completion_tokens": len(pieces)}
        yield Delta("", "stop", usage | {"total_tokens": 10 + len(pieces)})
