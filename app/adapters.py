"""A release's LoRA adapter on an engine that runs the base model.

Every load takes a new name and a new path, since vLLM keys its prefix cache by both and would serve
stale blocks. An engine that was started anew has forgotten its adapters: it is loaded again when it
is missed. Knows nothing of promotions.
"""

import asyncio
import secrets
import shutil
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx

from app.engine import Delta, HttpEngine, Message, NoSuchModel
from kb.errors import EngineDown


class AdapterEngine(HttpEngine):
    """`source` is the adapter's folder; what the engine reads is a copy of it in `copies`."""

    def __init__(
        self,
        url: str,
        release: str,
        *,
        source: Path,
        copies: Path,
        key: str = "",
        timeout: float = 120.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(url, "", shown=release, key=key, timeout=timeout, transport=transport)
        self._source = source
        self._copies = copies
        self._copy: Path | None = None
        self._loading = asyncio.Lock()

    async def load(self, missed: str = "") -> None:
        """Under a new name, unless another request has since the name `missed` was asked for.
        Raises EngineDown."""
        async with self._loading:
            if self._asked != missed:
                return  # another request has loaded it meanwhile
            name = f"{self.model}.{secrets.token_hex(4)}"
            copy = self._copies / name
            try:
                await asyncio.to_thread(shutil.copytree, self._source, copy)
                await self.load_adapter(name, str(copy))
            except BaseException as error:  # cancelled too
                shutil.rmtree(copy, ignore_errors=True)
                if isinstance(error, OSError):
                    raise EngineDown("the adapter cannot be copied for the engine") from error
                raise
            self._forget_copy()
            self._asked, self._copy = name, copy

    async def unload(self) -> None:
        """Raises EngineDown, BadData."""
        if self._asked:
            await self.unload_adapter(self._asked)
            self._asked = ""
        self._forget_copy()

    async def ready(self) -> bool:
        asked = self._asked
        try:
            if not asked or asked not in await self.names():
                await self.load(asked)
        except EngineDown:
            return False
        return True

    async def stream(
        self, messages: Sequence[Message], options: Mapping[str, Any]
    ) -> AsyncGenerator[Delta, None]:
        if not self._asked:  # vLLM would not miss it: an empty name is the base's too
            await self.load()
        asked = self._asked
        try:
            async with aclosing(super().stream(messages, options)) as deltas:
                async for delta in deltas:
                    yield delta
        except NoSuchModel:  # comes before the first delta
            await self.load(asked)
            async with aclosing(super().stream(messages, options)) as deltas:
                async for delta in deltas:
                    yield delta

    def _forget_copy(self) -> None:
        if self._copy is not None:
            shutil.rmtree(self._copy, ignore_errors=True)
            self._copy = None
