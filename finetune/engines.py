"""What an evaluation asks of a model: to answer, and how likely a text is; and both over HTTP.

Greedy always: two models are compared, not two draws. `finetune.local` answers without a server,
`HttpEngine` asks any server that speaks OpenAI's API. Knows no items and no judges.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from kb.errors import EngineDown

Messages = Sequence[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Asked:
    """How likely are these continuations of the context, each?"""

    context: str
    continuations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """Log-likelihood (natural) of a continuation, and how many tokens were scored."""

    logprob: float
    tokens: int


class Engine(Protocol):
    """A model that can be judged. Both calls keep the order of what they are given."""

    name: str

    def generate(self, prompts: Sequence[Messages], max_tokens: int) -> list[str]: ...

    def score(self, asked: Sequence[Asked]) -> list[list[Score]]: ...


class HttpEngine:
    """A model behind `/v1/chat/completions` and `/v1/completions` (vLLM's `echo` with `logprobs`).

    Raises EngineDown when the server cannot be reached or refuses.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key: str = "",
        parallel: int = 8,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._url = url.rstrip("/").removesuffix("/v1")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.name = model
        self._parallel = parallel
        self._transport = transport

    def generate(self, prompts: Sequence[Messages], max_tokens: int) -> list[str]:
        def one(messages: Messages) -> str:
            body = {"messages": list(messages), "max_tokens": max_tokens, "temperature": 0}
            reply = self._post("/v1/chat/completions", body)
            return str(reply["choices"][0]["message"]["content"] or "")

        with ThreadPoolExecutor(self._parallel) as pool:
            return list(pool.map(one, prompts))

    def score(self, asked: Sequence[Asked]) -> list[list[Score]]:
        def one(group: Asked) -> list[Score]:
            return [self._likelihood(group.context, text) for text in group.continuations]

        with ThreadPoolExecutor(self._parallel) as pool:
            return list(pool.map(one, asked))

    def _likelihood(self, context: str, text: str) -> Score:
        body = {"prompt": context + text, "max_tokens": 1, "echo": True, "logprobs": 1}
        told = self._post("/v1/completions", {**body, "temperature": 0})["choices"][0]["logprobs"]
        whole = len(context) + len(text)
        # One token is generated beyond the prompt, and nothing predicts the first.
        counted = [
            float(logprob)
            for logprob, start, token in zip(
                told["token_logprobs"], told["text_offset"], told["tokens"], strict=True
            )
            if logprob is not None and start < whole and start + len(token) > len(context)
        ]
        return Score(sum(counted), len(counted))

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            # A connection an answer, which takes far longer; none is left open.
            with httpx.Client(
                timeout=httpx.Timeout(300, connect=5), trust_env=False, transport=self._transport
            ) as client:
                reply = client.post(
                    f"{self._url}{path}",
                    json={"model": self.name, **body},
                    headers=self._headers,
                )
            reply.raise_for_status()
            answer = reply.json()
        except httpx.HTTPStatusError as error:
            said = " ".join(error.response.text.split())[:300]
            raise EngineDown(f"{self.name}: the engine refused {path}: {said}") from error
        except (httpx.HTTPError, ValueError) as error:
            raise EngineDown(f"{self.name}: the engine does not answer {path}: {error}") from error
        assert isinstance(answer, dict)
        return answer
