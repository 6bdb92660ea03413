"""`vademecum eval grounding`: items asked of the running server, each over its own passages only.

For every item a vector store is made, its passages are uploaded as text files, the question is
asked, and the store is removed again, however that ends. Uses the public HTTP API as any client
does; judging is `app.grounding`'s.
"""

import asyncio
import random
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx

from app.grounding import Item, Reply
from kb.errors import VademecumError
from kb.judging import refused, spoken

PREFIX = "eval-grounding-"
"""Of the stores' names; what a killed run left behind is removed by a later one."""
_LEFT_BEHIND_SECONDS = 3600
_LOOK_SECONDS = 0.1
_TAKE_IN_SECONDS = 300.0

Tell = Callable[[str], None]


class EvalFailed(VademecumError):
    """The server did not do its part; figures with holes would mislead."""


def sample(items: Sequence[Item], limit: int | None) -> list[Item]:
    """At most `limit` items of every kind and language, drawn with a fixed seed."""
    if limit is None:
        return list(items)
    kept: dict[tuple[str, str], list[Item]] = {}
    for item in random.Random(0).sample(list(items), len(items)):
        kept.setdefault((item.kind, item.lang), []).append(item)
    chosen = {item.id for some in kept.values() for item in some[:limit]}
    return [item for item in items if item.id in chosen]


def ask_all(
    url: str,
    items: Sequence[Item],
    *,
    model: str,
    key: str = "",
    concurrency: int = 4,
    tell: Tell = lambda said: None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> list[Reply]:
    """The server's replies, in the order of the items. Raises EvalFailed."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}

    async def run() -> list[Reply]:
        # trust_env: a proxy for the world is none for this machine.
        async with httpx.AsyncClient(
            base_url=url, headers=headers, timeout=300, trust_env=False, transport=transport
        ) as client:
            return await _Run(client, model, concurrency, tell).all(items)

    try:
        return asyncio.run(run())
    except ExceptionGroup as group:
        failed, others = group.split(EvalFailed)
        if failed is None or others is not None:
            raise
        raise failed.exceptions[0] from group


class _Run:
    def __init__(self, client: httpx.AsyncClient, model: str, concurrency: int, tell: Tell) -> None:
        self._client = client
        self._model = model
        self._places = asyncio.Semaphore(concurrency)
        self._name = f"{PREFIX}{secrets.token_hex(4)}"
        self._tell = tell
        self._done = 0

    async def all(self, items: Sequence[Item]) -> list[Reply]:
        await self._remove_left_behind()
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._one(number, item, len(items)))
                for number, item in enumerate(items)
            ]
        return [task.result() for task in tasks]

    async def _one(self, number: int, item: Item, of: int) -> Reply:
        async with self._places:
            body = {"name": f"{self._name}-{number}"}
            making = asyncio.create_task(self._call("POST", "/v1/vector_stores", json=body))
            try:
                store = (await asyncio.shield(making))["id"]
                await self._take_in(store, item)
                reply = await self._ask(store, item)
            finally:
                # Also when it is cancelled, in the middle of making the store even.
                await self._call("DELETE", f"/v1/vector_stores/{(await making)['id']}")
        self._done += 1
        if self._done % 25 == 0 or self._done == of:
            self._tell(f"{self._done} of {of} items")
        return reply

    async def _take_in(self, store: str, item: Item) -> None:
        files = [
            ("files", (f"p{number}.txt", passage.text.encode(), "text/plain"))
            for number, passage in enumerate(item.passages)
        ]
        await self._call("POST", f"/v1/vector_stores/{store}/upload", files=files)
        until = time.monotonic() + _TAKE_IN_SECONDS
        while True:
            counts = (await self._call("GET", f"/v1/vector_stores/{store}"))["file_counts"]
            if counts["failed"]:
                raise EvalFailed(f"item {item.id}: a passage could not be read")
            if counts["completed"] == len(item.passages):
                return
            if time.monotonic() >= until:
                raise EvalFailed(
                    f"item {item.id}: its passages were not taken in; does ingest run?"
                )
            await asyncio.sleep(_LOOK_SECONDS)

    async def _ask(self, store: str, item: Item) -> Reply:
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": item.question}],
            "knowledge": {"vector_store_ids": [store]},
        }
        said = await self._call("POST", "/v1/chat/completions", json=body)
        message = said["choices"][0]["message"]
        names = {f"p{number}.txt": p.id for number, p in enumerate(item.passages)}
        cited = dict.fromkeys(names[note["filename"]] for note in message["annotations"])
        text = str(message["content"])
        refuses = said["knowledge"]["refused"] or refused(spoken(text))
        return Reply(text, refuses, tuple(cited))

    async def _remove_left_behind(self) -> None:
        listed = await self._call("GET", "/v1/vector_stores", params={"limit": 100})
        for store in listed["data"]:
            age = time.time() - store["created_at"]
            if store["name"].startswith(PREFIX) and age > _LEFT_BEHIND_SECONDS:
                await self._call("DELETE", f"/v1/vector_stores/{store['id']}")

    async def _call(self, method: str, path: str, **more: Any) -> Any:
        try:
            reply = await self._client.request(method, path, **more)
            while reply.status_code == httpx.codes.TOO_MANY_REQUESTS:
                await asyncio.sleep(float(reply.headers.get("Retry-After", "1")))
                reply = await self._client.request(method, path, **more)
            body = reply.json()
        except httpx.ConnectError as error:
            raise EvalFailed("no server answers: start it with `vademecum up`") from error
        except (httpx.HTTPError, ValueError) as error:
            raise EvalFailed(f"the server broke off at {method} {path}: {error!r}") from error
        if reply.is_error:
            raise EvalFailed(f"{method} {path}: {body['error']['message']}")
        return body
