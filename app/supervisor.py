"""Keeps children running: starts, watches, starts again with back-off, stops in order.

Some stay for good, others come and go while it runs. Knows nothing of engines or servers, only
`ChildSpec`s. `app.up` builds the children.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.children import ChildSpec
from app.world import Backoff, Running, World

POLL_SECONDS = 0.2
HEALTH_SECONDS = 10.0
HEALTH_FAILURES = 3
STOP_SECONDS = 15.0
REMIND_SECONDS = 30.0


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
    comes_and_goes: bool = False
    kill_at: float | None = None  # it is leaving


class Supervisor:
    """`run` starts the children in the given order and stops them in the opposite one.

    `changing` is asked at every turn which others should run, by name; they go before the rest.
    `on_end` is called with the name of such a one whenever it ended and is to be started again.
    """

    def __init__(
        self,
        specs: Sequence[ChildSpec],
        world: World,
        *,
        ready_url: str,
        on_ready: Callable[[], None],
        changing: Callable[[], Sequence[ChildSpec]] = tuple,
        on_end: Callable[[str], None] = lambda name: None,
        backoff: Backoff | None = None,
    ) -> None:
        self._children = [_Supervised(spec) for spec in specs]
        self._changing = changing
        self._on_end = on_end
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
                self._follow_changes()
                for one in list(self._children):
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

    def _follow_changes(self) -> None:
        wanted = {spec.name: spec for spec in self._changing()}
        for one in self._children:
            if one.comes_and_goes and wanted.pop(one.spec.name, None) != one.spec:
                self._let_go(one)
        new = [_Supervised(spec, comes_and_goes=True) for spec in wanted.values()]
        self._children = [*new, *self._children]

    # -- one child -------------------------------------------------------------------------------

    def _let_go(self, one: _Supervised) -> None:
        """Ask a child to end, once."""
        if one.kill_at is not None:
            return
        one.kill_at = self._world.clock() + STOP_SECONDS
        self._world.say(f"{one.spec.name}: no longer needed, stopping")
        if one.running is not None:
            one.running.terminate()

    def _see_off(self, one: _Supervised, now: float) -> None:
        """Wait for a child that was asked to end, but not for ever."""
        assert one.kill_at is not None
        if one.running is not None and one.running.exit_code() is None:
            if now < one.kill_at:
                return
            self._world.say(f"{one.spec.name}: does not end, killed")
            one.running.kill()
        self._children.remove(one)

    def _look_after(self, one: _Supervised) -> None:
        now = self._world.clock()
        if one.kill_at is not None:
            self._see_off(one, now)
            return
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
        if one.comes_and_goes:
            self._on_end(one.spec.name)
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
