"""How a release comes to answer and stops: as an adapter on the running engine, or on its own.

Where weights are merged or an engine is slow with adapters, a second engine starts beside the first
(blue-green): it is declared in `app.engines`, the supervisor starts it, and here it is waited for.
Knows nothing of gates, probes or who is current. A fake with the same contract ships here.
"""

import asyncio
import logging
import shutil
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Protocol, TypeGuard

from app import engines
from app.adapters import AdapterEngine
from app.children import ENGINE_MODEL, LOOPBACK
from app.engine import Engine, FakeEngine, HttpEngine
from app.errors import NotPromotable, PromotionFailed
from app.ports import free_port
from app.settings import EngineSettings
from kb.errors import EngineDown
from kb.manifest import BASE, Manifest
from kb.merging import forget, is_merged
from kb.models import shown
from kb.release import ADAPTER, folder

log = logging.getLogger(__name__)
_LOOK_SECONDS = 0.5
_ENDS = 3
"""Once may be the memory of the one before, which is just leaving."""


class Launcher(Protocol):
    """A release is a manifest; None is the base."""

    def attach(self, manifest: Manifest | None) -> Engine:
        """The engine of what ran before this process began, or of the base; it may not be up
        yet."""
        ...

    def runs(self, manifest: Manifest | None) -> bool:
        """Whether its engine is one that should be running."""
        ...

    async def start(self, manifest: Manifest | None) -> Engine:
        """An engine that can answer. Raises PromotionFailed, NotPromotable; then nothing is left
        of it."""
        ...

    async def stop(self, release: str, engine: Engine) -> None:
        """Let it go; it is closed."""
        ...

    def keep(self, releases: Collection[str]) -> None:
        """Stop every engine that none of these stands on."""
        ...

    def needs(self, release: str) -> bool:
        """Whether others stand on its engine: then keeping it costs nothing."""
        ...

    def base(self) -> Engine | None:
        """The bare model where it runs, to compare with; to be closed by who asked."""
        ...


Merge = Callable[[Manifest], Awaitable[None]]


class Engines:
    """The engines of this machine, or the one at `[engine] url`."""

    def __init__(
        self,
        home: Path,
        settings: EngineSettings,
        *,
        cpu: bool,
        merge: Merge,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._home = home
        self._settings = settings
        self._cpu = cpu
        self._merge = merge
        self._sleep = sleep
        self._clock = clock
        self._adapters = 0
        self._copies = home / "engine" / "adapters"
        shutil.rmtree(self._copies, ignore_errors=True)  # of a process that was killed

    def attach(self, manifest: Manifest | None) -> Engine:
        if self._by_adapter(manifest):
            self._running(None)
            self._adapters += 1
            return self._adapter(manifest)
        return self._at(self._running(manifest), manifest)

    def runs(self, manifest: Manifest | None) -> bool:
        if self._by_adapter(manifest):
            return False  # loading it takes no longer than finding out
        return bool(self._settings.url) or self._declared(manifest) is not None

    async def start(self, manifest: Manifest | None) -> Engine:
        if not self._by_adapter(manifest):
            return await self._own(manifest)
        host = await self._own(None)
        await host.close()
        engine = self._adapter(manifest)
        try:
            await engine.load()
        except BaseException as error:  # cancelled too
            await engine.close()
            if isinstance(error, EngineDown):
                raise PromotionFailed(str(error)) from error
            raise
        self._adapters += 1
        return engine

    async def stop(self, release: str, engine: Engine) -> None:
        try:
            if isinstance(engine, AdapterEngine):
                self._adapters -= 1
                await engine.unload()
            elif not self._settings.url and not self.needs(release):
                self._declare([one for one in engines.read(self._home) if one.release != release])
        finally:
            await engine.close()

    def keep(self, releases: Collection[str]) -> None:
        if self._settings.url:
            return
        declared = engines.read(self._home)
        kept = [one for one in declared if one.release in releases or self.needs(one.release)]
        if kept != declared:
            self._declare(kept)

    def needs(self, release: str) -> bool:
        return release == BASE and (bool(self._settings.url) or self._adapters > 0)

    def base(self) -> Engine | None:
        if not self._settings.url and self._declared(None) is None:
            return None
        return self._at(self._declared(None), None)

    # -- engines of their own --------------------------------------------------------------------

    async def _own(self, manifest: Manifest | None) -> Engine:
        """Started unless it runs."""
        if self._settings.url:
            if manifest is not None:
                raise NotPromotable(
                    f"{manifest.id} has whole weights, and the engine at [engine] url is not"
                    " started here: serve them there, under the name that [engine] model gives"
                )
            return self._at(None, None)
        wanted = self._declared(manifest)
        if not (running := wanted is not None):
            if manifest is not None and not is_merged(self._home, manifest):
                await self._merge(manifest)
            wanted = self._declare_own(manifest)
        engine = self._at(wanted, manifest)
        try:
            await self._until_ready(engine, engines.name(_id(manifest)))
        except BaseException:  # cancelled too: what was declared must not stay behind
            if not running:
                await self.stop(_id(manifest), engine)
            raise
        return engine

    def _running(self, manifest: Manifest | None) -> engines.Wanted | None:
        """Declared from now on, if it was not; None at `[engine] url`."""
        if self._settings.url:
            return None
        return self._declared(manifest) or self._declare_own(manifest)

    def _declare_own(self, manifest: Manifest | None) -> engines.Wanted:
        declared = engines.read(self._home)
        port = free_port(LOOPBACK) if declared else self._settings.port
        wanted = engines.own(self._home, manifest, port)
        self._declare([*declared, wanted])
        return wanted

    async def _until_ready(self, engine: Engine, name: str) -> None:
        until = self._clock() + self._settings.start_seconds
        ended = engines.ends(self._home, name)
        while not await engine.ready():
            if engines.ends(self._home, name) - ended >= _ENDS:
                raise PromotionFailed(
                    f"the engine with {engine.model} ended {_ENDS} times before it answered;"
                    f" logs/{name}.log says why"
                )
            if self._clock() >= until:
                raise PromotionFailed(
                    f"the engine with {engine.model} did not answer within"
                    f" {self._settings.start_seconds:.0f} s; logs/engine*.log says why"
                )
            await self._sleep(_LOOK_SECONDS)

    def _declared(self, manifest: Manifest | None) -> engines.Wanted | None:
        return next((one for one in engines.read(self._home) if one.is_of(manifest)), None)

    def _declare(self, wanted: list[engines.Wanted]) -> None:
        engines.write(self._home, wanted)
        forget(self._home, {one.release for one in wanted})

    def _at(self, wanted: engines.Wanted | None, manifest: Manifest | None) -> HttpEngine:
        settings = self._settings
        port = wanted.port if wanted else settings.port
        return HttpEngine(
            settings.url or f"http://{LOOPBACK}:{port}",
            settings.model if settings.url else ENGINE_MODEL,
            shown=manifest.id if manifest else shown(settings.model),
            key=settings.key,
            timeout=settings.timeout_seconds,
        )

    # -- adapters --------------------------------------------------------------------------------

    def _by_adapter(self, manifest: Manifest | None) -> TypeGuard[Manifest]:
        return manifest is not None and engines.by_adapter(manifest, self._settings, cpu=self._cpu)

    def _adapter(self, manifest: Manifest) -> AdapterEngine:
        settings = self._settings
        host = self._declared(None)
        return AdapterEngine(
            settings.url or f"http://{LOOPBACK}:{host.port if host else settings.port}",
            manifest.id,
            source=folder(self._home, manifest.id) / ADAPTER,
            copies=self._copies,
            key=settings.key,
            timeout=settings.timeout_seconds,
        )


class FakeLauncher:
    """Gives each release the engine that the test made for it. `started`, `stopped` and `needed`
    are ids."""

    def __init__(self, base: FakeEngine, releases: Mapping[str, FakeEngine]) -> None:
        self._engines = {BASE: base, **releases}
        self.running = {BASE}
        self.started: list[str] = []
        self.stopped: list[str] = []
        self.needed: set[str] = set()

    def attach(self, manifest: Manifest | None) -> Engine:
        return self._engines[_id(manifest)]

    def runs(self, manifest: Manifest | None) -> bool:
        return _id(manifest) in self.running

    async def start(self, manifest: Manifest | None) -> Engine:
        engine = self._engines[_id(manifest)]
        self.started.append(_id(manifest))
        if not await engine.ready():
            raise PromotionFailed("the engine did not answer")
        self.running.add(_id(manifest))
        return engine

    async def stop(self, release: str, engine: Engine) -> None:
        self.stopped.append(release)
        self.running.discard(release)

    def keep(self, releases: Collection[str]) -> None:
        self.stopped += sorted(self.running - self.needed.union(releases))
        self.running &= self.needed.union(releases)

    def needs(self, release: str) -> bool:
        return release in self.needed

    def base(self) -> Engine | None:
        return self._engines[BASE] if BASE in self.running else None


def _id(manifest: Manifest | None) -> str:
    return manifest.id if manifest else BASE
