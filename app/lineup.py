"""Who answers under which name: the current release, and all others that are loaded.

A request takes its `Serving` once and keeps it to the end, so that switching the name `vademecum`
loses nobody. Knows nothing of how an engine came up.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager

from app.answer import Answerer, Event
from app.completion import MODEL
from app.engine import Engine
from app.errors import UnknownModel
from kb.manifest import BASE, Manifest

_LOOK_SECONDS = 0.05


class Serving:
    """A release that can answer now; without a manifest the base model."""

    def __init__(self, manifest: Manifest | None, engine: Engine, answerer: Answerer) -> None:
        self.manifest = manifest
        self.release = manifest.id if manifest else BASE
        self.engine = engine
        self.answerer = answerer
        self.under_way = 0
        self._events = 0

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """While a request is answered by it: the engine is not stopped meanwhile."""
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1

    async def watch(self, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
        """Hand an answer's events on, counting."""
        async with aclosing(events):
            async for event in events:
                self._events += 1
                yield event

    async def until_done(
        self, stall_seconds: float, sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        """Until its last answer is done, however long that takes, or none has gone on for so long:
        a reader that stalls is not waited for."""
        events, still = self._events, 0.0
        while self.under_way and still < stall_seconds:
            await sleep(_LOOK_SECONDS)
            still = still + _LOOK_SECONDS if self._events == events else 0.0
            events = self._events


class Lineup:
    """The loaded releases. Used from one event loop, so every change is atomic."""

    def __init__(self, current: Serving) -> None:
        self.current = current
        self._loaded = {current.release: current}

    def get(self, release: str) -> Serving | None:
        return self._loaded.get(release)

    def others(self) -> list[Serving]:
        """All but the current one."""
        return [one for one in self._loaded.values() if one is not self.current]

    def add(self, serving: Serving) -> None:
        self._loaded[serving.release] = serving

    def remove(self, serving: Serving) -> None:
        """No new request gets it. It must not be the current one."""
        assert serving is not self.current
        self._loaded.pop(serving.release, None)

    def switch(self, to: Serving) -> None:
        """From now on `to` is what `vademecum` means."""
        self._loaded[to.release] = to
        self.current = to

    def names(self) -> list[str]:
        """What a request may name as its model."""
        return [MODEL, *(one.engine.model for one in self._loaded.values())]

    def pick(self, model: str) -> Serving:
        """Raises UnknownModel."""
        if model == MODEL:
            return self.current
        for one in self._loaded.values():
            if one.engine.model == model:
                return one
        raise UnknownModel(f"there is no model {model!r}; see /v1/models")

    async def close(self) -> None:
        for one in self._loaded.values():
            await one.engine.close()
