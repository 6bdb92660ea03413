"""The story of a release on the server: promote, roll back, go on after a restart.

Checked, brought up, probed, switched, written down; the one before is kept for a while. What is
served changes only when all of that went well. Knows who is current and in which order; how an
engine comes up is `app.launch`'s.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app import probe
from app.engine import Engine
from app.errors import NotPromotable, PromotionFailed, PromotionUnderWay, UnknownRelease
from app.launch import Launcher
from app.lineup import Lineup, Serving
from kb import release
from kb.errors import BadData, EngineDown, GateClosed, VademecumError
from kb.manifest import BASE, Manifest, is_id

log = logging.getLogger(__name__)
_REMEMBERED = 10
"""How many rollbacks in a row are possible."""
_CLOSE_SECONDS = 5

Serve = Callable[[Manifest | None, Engine], Serving]
"""A release and its engine -> who answers with them."""
Misfits = Callable[[Manifest], Sequence[str]]
"""Why a release cannot be served here. Blocking."""


@dataclass(frozen=True, slots=True)
class UnderWay:
    """A promotion or rollback: to which release, and how far it is."""

    release: str
    state: str


class Releases:
    """Used from one event loop. `current` is what is served at the start (None: the base). An
    engine is kept for `keep_seconds` for a rollback; answers on it that say nothing for
    `stall_seconds` are not waited for."""

    def __init__(
        self,
        home: Path,
        launcher: Launcher,
        serve: Serve,
        misfits: Misfits,
        *,
        current: Manifest | None,
        keep_seconds: float,
        stall_seconds: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._home = home
        self._launcher = launcher
        self._serve = serve
        self._misfits = misfits
        self._keep_seconds = keep_seconds
        self._stall_seconds = stall_seconds
        self._sleep = sleep
        self._under_way: UnderWay | None = None
        self._expiring: asyncio.Task[None] | None = None
        self._stopping: dict[asyncio.Task[None], str] = {}  # and whose engine it is
        self.lineup = self._resume(current)

    def rows(self) -> list[dict[str, Any]]:
        """Every release and the base, as GET /admin/releases shows them. Blocking."""
        stored = release.listed(self._home)
        return [{"id": BASE, "state": self._state(BASE)}, *map(self._row, stored)]

    async def promote(self, name: str, *, force: bool = False) -> None:
        """Serve a release as `vademecum`, when it can and may. `force` overrides its gate.

        Raises UnknownRelease, BadData (damaged), NotPromotable, PromotionUnderWay, PromotionFailed.
        """
        with self._alone(name):
            order = await asyncio.to_thread(release.succession, self._home)
            answers = name == self.lineup.current.release
            manifest = await asyncio.to_thread(self._checked, name, force or answers)
            serving = self._loaded(name, manifest)
            if name != order[0]:
                order = [name, *order][: _REMEMBERED + 1]
            elif serving is self.lineup.current:
                return
            # The base may answer although `order` begins with another, which a start refused.
            await self._switch(serving or await self._bring_up(manifest), order)

    async def rollback(self) -> None:
        """Serve again what was served before. Raises as `promote` does."""
        with self._alone("") as tell:
            order = await asyncio.to_thread(release.succession, self._home)
            if len(order) < 2:
                raise NotPromotable("nothing was served before this: there is no way back")
            tell(order[1])
            serving = self.lineup.get(order[1])
            if serving is None:
                # It was served before: neither gate nor difference is asked for again.
                manifest = await asyncio.to_thread(self._fitting, order[1])
                serving = await self._bring_up(manifest, compare=False)
            await self._switch(serving, order[1:])

    async def open(self) -> None:
        """Of what ran before this process, stop what nobody answers with, now or when it was kept
        for long enough."""
        self._sweep()
        self._expire_later()

    async def close(self) -> None:
        """Stop what runs in the background. The engines stay, but for those that were already being
        stopped; `lineup` closes connections."""
        if self._expiring is not None:
            self._expiring.cancel()
        if self._stopping:
            await asyncio.wait(self._stopping, timeout=_CLOSE_SECONDS)

    # -- the steps -------------------------------------------------------------------------------

    def _loaded(self, name: str, manifest: Manifest | None) -> Serving | None:
        """Who answers with this very release: another may have been made under the same id."""
        serving = self.lineup.get(name)
        if serving is None or serving.manifest == manifest:
            return serving
        if serving is self.lineup.current:
            raise NotPromotable(
                f"{name} answers, and its folder holds another release by now: roll back first, or"
                " give that one another name"
            )
        return None

    def _checked(self, name: str, force: bool) -> Manifest | None:
        """The manifest, if the release is whole, fits and may be served. Blocking."""
        manifest = self._fitting(name)
        if manifest is not None and not manifest.gate.passed and not force:
            raise GateClosed(
                f"{name} did not pass its gate: {manifest.gate.why} (force: true serves it anyway)"
            )
        return manifest

    def _fitting(self, name: str) -> Manifest | None:
        """The manifest, if the release is whole and what is served here suits it. Blocking."""
        manifest = self._read(name)
        if manifest is not None and (reasons := self._misfits(manifest)):
            raise NotPromotable(f"{name} cannot be served here: {'; '.join(reasons)}")
        return manifest

    def _read(self, name: str) -> Manifest | None:
        """None is the base. Every file is hashed: blocking."""
        if name == BASE:
            return None
        if not is_id(name) or not release.folder(self._home, name).is_dir():
            raise UnknownRelease(f"there is no release {name!r}")
        try:
            return release.read(release.folder(self._home, name))
        except BadData as error:
            raise NotPromotable(str(error)) from error

    async def _bring_up(self, manifest: Manifest | None, *, compare: bool = True) -> Serving:
        """A release that answers, and (unless not asked to) not as the base does."""
        name = manifest.id if manifest else BASE
        await self._drop_others()  # room for the new one
        if self._stopping:  # by `_expire`; what is being stopped must not be started meanwhile
            await asyncio.wait(self._stopping)
        self._under_way = UnderWay(name, "starting")
        engine = await self._launcher.start(manifest)
        self._under_way = UnderWay(name, "probing")
        try:
            await self._probe(engine, compare=compare and manifest is not None)
        except BaseException:  # cancelled too: it must not go on running unseen
            await self._launcher.stop(name, engine)
            raise
        return self._serve(manifest, engine)

    async def _probe(self, engine: Engine, *, compare: bool) -> None:
        base = self._launcher.base() if compare else None
        try:
            if not await probe.answers(engine):
                raise PromotionFailed(f"{engine.model} gives empty answers")
            if base is not None and not await probe.differ(engine, base):
                raise PromotionFailed(f"{engine.model} answers exactly as the base: not tuned")
        except (EngineDown, BadData) as error:
            raise PromotionFailed(f"{engine.model} was asked and failed: {error}") from error
        finally:
            if base is not None:
                await base.close()

    async def _switch(self, to: Serving, order: Sequence[str]) -> None:
        before = self.lineup.current
        self.lineup.switch(to)
        try:
            await asyncio.to_thread(release.succeed, self._home, order)
        except OSError as error:
            self.lineup.switch(before)
            raise PromotionFailed("releases/current cannot be written") from error
        log.info("%s answers now; %s is kept", to.release, before.release)
        self._expire_later()

    # -- what is kept ----------------------------------------------------------------------------

    def _expire_later(self) -> None:
        if self._expiring is not None:
            self._expiring.cancel()
        self._expiring = asyncio.create_task(self._expire())

    async def _expire(self) -> None:
        await self._sleep(self._keep_seconds)
        await self._drop_others()

    async def _drop_others(self) -> None:
        # The base last: adapters stand on its engine.
        for kept in sorted(self.lineup.others(), key=lambda one: one.release == BASE):
            if not self._launcher.needs(kept.release):
                await self._drop(kept)
                log.info("%s is no longer kept", kept.release)

    async def _drop(self, serving: Serving) -> None:
        """Out of the lineup, and then to its end, even if who asked is cancelled meanwhile: nobody
        else knows of its engine any more."""
        self.lineup.remove(serving)
        stopping = asyncio.create_task(self._stop(serving))
        self._stopping[stopping] = serving.release
        stopping.add_done_callback(self._stopping.pop)
        await asyncio.shield(stopping)

    async def _stop(self, serving: Serving) -> None:
        """Let requests under way finish, then stop its engine."""
        await serving.until_done(self._stall_seconds, self._sleep)
        try:
            await self._launcher.stop(serving.release, serving.engine)
        except VademecumError as error:
            log.warning("%s could not be stopped cleanly: %s", serving.release, error)
        self._sweep()

    def _sweep(self) -> None:
        """Stop engines that nobody answers with: left by a promotion, or by adapters."""
        if self._under_way is not None:  # one that comes up looks like those; its end sweeps
            return
        answering = {one.release for one in (self.lineup.current, *self.lineup.others())}
        try:
            self._launcher.keep(answering.union(self._stopping.values()))
        except (BadData, OSError) as error:
            log.warning("engines that nobody needs may go on running: %s", error)

    # -- after a restart -------------------------------------------------------------------------

    def _resume(self, current: Manifest | None) -> Lineup:
        """What runs beside it goes on too: the one before, and the base."""
        lineup = Lineup(self._serve(current, self._launcher.attach(current)))
        try:
            for name in dict.fromkeys([*release.succession(self._home)[1:2], BASE]):
                beside = self._peek(name)
                if lineup.get(name) or not self._launcher.runs(beside):
                    continue
                if beside is None or not self._misfits(beside):
                    lineup.add(self._serve(beside, self._launcher.attach(beside)))
        except BadData as error:
            log.warning("nothing is kept for a rollback: %s", error)
        return lineup

    def _peek(self, name: str) -> Manifest | None:
        return None if name == BASE else release.peek(release.folder(self._home, name))

    # -- telling ---------------------------------------------------------------------------------

    @contextmanager
    def _alone(self, name: str) -> Iterator[Callable[[str], None]]:
        if self._under_way is not None:
            raise PromotionUnderWay(
                f"{self._under_way.release or 'a rollback'} is being brought up; one at a time"
            )

        def tell(release: str) -> None:
            self._under_way = UnderWay(release, "starting")

        tell(name)
        try:
            yield tell
        finally:
            self._under_way = None
            self._sweep()

    def _state(self, name: str) -> str:
        if name == self.lineup.current.release:
            return "current"
        if self._under_way is not None and self._under_way.release == name:
            return self._under_way.state
        return "kept" if self.lineup.get(name) else "stored"

    def _row(self, stored: release.Stored) -> dict[str, Any]:
        row: dict[str, Any] = {"id": stored.id, "state": self._state(stored.id)}
        if (manifest := stored.manifest) is None:
            return row | {"problem": stored.problem}
        told = manifest.model_dump(include={"created", "kind", "metrics", "gate"})
        return row | told | {"base": manifest.base.name}
