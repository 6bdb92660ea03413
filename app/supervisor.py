"""Keeps children running: starts, watches, starts again with back-off, stops in order.

Knows nothing of engines or servers, only `ChildSpec`s. Clock, sleep and random source are handed
in. `app.up` builds the children.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import httpx

from app.child import Child
from app.children import ChildSpec

POLL_SECONDS = 0.2
HEALTH_SECONDS = 10.0
HEALTH_FAILURES = 3
STOP_SECONDS = 15.0
REMIND_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """1 s, 2 s, 4 s, ... 30 s between starts; a run of a minute forgets earlier failures."""

    first_seconds: float = 1.0
    max_seconds: float = 30.0
    steady_seconds: float = 60.0

    def delay(self, failures: int, rng: random.Random) -> float:
        """Seconds to wait after the `failures`-th failure in a row (1 for the first)."""
        full = min(self.max_seconds, self.first_seconds * 2.0 ** min(failures - 1, 30))
        return full * rng.uniform(0.9, 1.0)


class Running(Protocol):
    """What the supervisor asks of a started child (`app.child.Child`)."""

    @property
    def pid(self) -> int: ...

    def exit_code(self) -> int | None: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...

    def last_lines(self, n: int) -> list[str]: ...


def answers(url: str) -> bool:
    """Whether `url` says 200 within five seconds."""
    try:
        # trust_env: a proxy for the world is none for this machine.
        return httpx.get(url, timeout=5.0, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


@dataclass(frozen=True, slots=True)
class World:
    """Everything outside: time, chance, processes, the network, the reader of messages."""

    say: Callable[[str], None]
    start: Callable[[ChildSpec], Running]
    answers: Callable[[str], bool] = answers
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    rng: random.Random = field(default_factory=random.Random)


def on_this_machine(logs: Path, say: Callable[[str], None]) -> World:
    return World(say=say, start=lambda spec: Child(spec, logs))


class _Permanent(Exception):
    """A child ended in a way that starting again cannot help."""


@dataclass(slots=True)
class _Supervised:
    spec: ChildSpec
    running: Running | None = None
    started_at: float = 0.0
    start_at: float = 0.0
    failures: int = 0
    up: bool = False
    check_at: float = 0.0
    unanswered: int = 0


class Supervisor:
    """`run` starts the children in the given order and stops them in the opposite one."""

    def __init__(
        self,
        specs: Sequence[ChildSpec],
        world: World,
        *,
        ready_url: str,
        on_ready: Callable[[], None],
        backoff: Backoff | None = None,
    ) -> None:
        self._children = [_Supervised(spec) for spec in specs]
        self._world = world
        self._ready_url = ready_url
        self._on_ready = on_ready
        self._backoff = backoff or Backoff()
        self._is_ready = False
        self._ready_check_at = 0.0

    def run(self, stop: Callable[[], bool], hurry: Callable[[], bool] = lambda: False) -> int:
        """Until `stop()`. While stopping, `hurry()` skips the grace. Returns the exit code: 0, or
        3 if a child cannot run as it is configured."""
        began = self._world.clock()
        remind_at = began + REMIND_SECONDS
        try:
            while not stop():
                for one in self._children:
                    self._look_after(one)
                self._look_whether_ready(began)
                if not self._is_ready and self._world.clock() >= remind_at:
                    remind_at += REMIND_SECONDS
                    self._world.say(f"not ready yet; waiting for {self._missing()}")
                self._world.sleep(POLL_SECONDS)
        except _Permanent as error:
            self._world.say(str(error))
            return 3
        finally:
            self._stop_all(hurry)
        return 0

    # -- one child -------------------------------------------------------------------------------

    def _look_after(self, one: _Supervised) -> None:
        now = self._world.clock()
        if one.running is None:
            if now >= one.start_at:
                self._start(one, now)
            return
        code = one.running.exit_code()
        if code is not None:
            self._ended(one, code)
        elif one.spec.health_url and now >= one.check_at:
            self._check(one)

    def _start(self, one: _Supervised, now: float) -> None:
        one.running = self._world.start(one.spec)
        one.started_at = now
        one.up = False
        one.unanswered = 0
        one.check_at = now
        self._world.say(f"{one.spec.name}: starting (process {one.running.pid})")

    def _ended(self, one: _Supervised, code: int) -> None:
        assert one.running is not None
        name = one.spec.name
        if code in one.spec.permanent:
            said = "\n".join(f"  {line}" for line in one.running.last_lines(10))
            one.running = None
            raise _Permanent(f"{name}: cannot run as it is configured (exit {code}):\n{said}")
        last = one.running.last_lines(1)
        self._again(one, f"ended (exit {code})" + (f": {last[0]}" if last else ""))

    def _again(self, one: _Supervised, why: str) -> None:
        """Plan the next start."""
        now = self._world.clock()
        one.running = None
        if now - one.started_at >= self._backoff.steady_seconds:
            one.failures = 0
        one.failures += 1
        delay = self._backoff.delay(one.failures, self._world.rng)
        one.start_at = now + delay
        self._world.say(f"{one.spec.name}: {why}; starting again in {delay:.0f} s")

    def _check(self, one: _Supervised) -> None:
        assert one.running is not None
        healthy = self._world.answers(one.spec.health_url)
        now = self._world.clock()
        one.check_at = now + (HEALTH_SECONDS if one.up else 1.0)
        if healthy:
            if not one.up:
                self._world.say(f"{one.spec.name}: up after {now - one.started_at:.0f} s")
                one.check_at = now + HEALTH_SECONDS
            one.up = True
            one.unanswered = 0
        elif one.up:
            one.unanswered += 1
            if one.unanswered >= HEALTH_FAILURES:
                one.running.kill()
                self._again(one, "does not answer any more, killed")

    # -- all -------------------------------------------------------------------------------------

    def _look_whether_ready(self, began: float) -> None:
        now = self._world.clock()
        if self._is_ready or now < self._ready_check_at:
            return
        self._ready_check_at = now + 0.5
        if all(one.up for one in self._children if one.spec.health_url) and self._world.answers(
            self._ready_url
        ):
            self._is_ready = True
            self._world.say(f"ready after {self._world.clock() - began:.0f} s")
            self._on_ready()

    def _missing(self) -> str:
        waiting = [one.spec.name for one in self._children if one.spec.health_url and not one.up]
        return " and ".join(waiting) or "the server to say that it is ready"

    def _stop_all(self, hurry: Callable[[], bool]) -> None:
        for one in reversed(self._children):
            if one.running is None:
                continue
            self._world.say(f"{one.spec.name}: stopping")
            one.running.terminate()
            until = self._world.clock() + STOP_SECONDS
            while one.running.exit_code() is None:
                if hurry() or self._world.clock() >= until:
                    self._world.say(f"{one.spec.name}: does not end, killed")
                    one.running.kill()
                    break
                self._world.sleep(0.05)
            one.running = None
