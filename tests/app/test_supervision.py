"""When children are started, judged and started again: the supervisor in a world without time."""

import random
from collections.abc import Callable

import pytest

from app.children import ChildSpec
from app.supervisor import Supervisor
from app.world import Backoff, World

READY = "http://ready"
HEALTH = "http://health"


class Puppet:
    """A child that does what the test says."""

    pid = 1

    def __init__(self, dies_at: float | None, clock: Callable[[], float]) -> None:
        self.killed = False
        self.terminated_at: float | None = None
        self.deaf = False
        self._dies_at = dies_at
        self._clock = clock

    def exit_code(self) -> int | None:
        if self.killed:
            return 137
        if self._dies_at is not None and self._clock() >= self._dies_at:
            return 1
        return 0 if self.terminated_at is not None and not self.deaf else None

    def terminate(self) -> None:
        self.terminated_at = self._clock()

    def kill(self) -> None:
        self.killed = True

    def last_lines(self, n: int) -> list[str]:
        return ["the end"]


class Stage:
    """A world whose time passes only while the supervisor sleeps.

    `lives` are the seconds that one start after the other lives (None: for ever); `healthy` says
    which URL answers at which time.
    """

    def __init__(self, *lives: float | None, healthy: Callable[[str, float], bool]) -> None:
        self.now = 0.0
        self.said: list[str] = []
        self.started: list[tuple[float, str]] = []
        self.puppets: list[Puppet] = []
        self.ready = 0
        self._lives = list(lives)
        self._healthy = healthy

    def run(
        self,
        specs: list[ChildSpec],
        seconds: float,
        hurry: bool = False,
        changing: Callable[[], list[ChildSpec]] = list,
        on_end: Callable[[str], None] = lambda name: None,
    ) -> int:
        world = World(
            say=self.said.append,
            start=self._start,
            answers=lambda url: self._healthy(url, self.now),
            clock=lambda: self.now,
            sleep=self._sleep,
            rng=random.Random(0),
        )
        supervisor = Supervisor(
            specs,
            world,
            ready_url=READY,
            on_ready=self._on_ready,
            changing=changing,
            on_end=on_end,
        )
        return supervisor.run(lambda: self.now >= seconds, lambda: hurry)

    def times(self) -> list[float]:
        return [at for at, _ in self.started]

    def _start(self, spec: ChildSpec) -> Puppet:
        life = self._lives.pop(0) if self._lives else None
        puppet = Puppet(None if life is None else self.now + life, lambda: self.now)
        self.started.append((self.now, spec.name))
        self.puppets.append(puppet)
        return puppet

    def _sleep(self, seconds: float) -> None:
        self.now += seconds

    def _on_ready(self) -> None:
        self.ready += 1


def never(url: str, now: float) -> bool:
    return False


def always(url: str, now: float) -> bool:
    return True


def one(**more: str) -> list[ChildSpec]:
    return [ChildSpec("one", ("x",), **more)]  # type: ignore[arg-type]


@pytest.mark.parametrize(("failures", "seconds"), [(1, 1), (2, 2), (4, 8), (6, 30), (900, 30)])
def test_the_pause_doubles_up_to_half_a_minute(failures: int, seconds: float) -> None:
    delays = [Backoff().delay(failures, random.Random(seed)) for seed in range(20)]
    assert max(delays) <= seconds
    assert min(delays) >= 0.9 * seconds


def test_pauses_grow_while_a_child_keeps_failing() -> None:
    stage = Stage(*[1.0] * 9, healthy=never)
    stage.run(one(), 150)
    starts = stage.times()
    pauses = [later - earlier - 1 for earlier, later in zip(starts, starts[1:], strict=False)]  # noqa: RUF007
    assert pauses[:7] == pytest.approx([1, 2, 4, 8, 16, 30, 30], rel=0.35)


def test_a_minute_of_life_forgets_earlier_failures() -> None:
    stage = Stage(1.0, 1.0, 1.0, 1.0, 61.0, None, healthy=never)
    stage.run(one(), 150)
    last, before = stage.times()[-1], stage.times()[-2]
    assert last - before - 61 <= 1.5


def test_ready_is_said_once_and_only_when_the_server_says_so() -> None:
    stage = Stage(None, 30.0, None, healthy=lambda url, now: url == HEALTH or now >= 20)
    stage.run([*one(health_url=HEALTH), ChildSpec("two", ("x",))], 100)
    assert stage.ready == 1
    assert any(line.startswith("ready after 20") for line in stage.said)


def test_it_is_not_ready_while_a_child_never_answers() -> None:
    stage = Stage(healthy=lambda url, now: url == READY)
    stage.run(one(health_url=HEALTH), 70)
    assert stage.ready == 0
    assert sum("waiting for one" in line for line in stage.said) == 2


def test_a_child_that_stops_answering_is_killed_and_started_again() -> None:
    stage = Stage(healthy=lambda url, now: now < 100)
    stage.run(one(health_url=HEALTH), 140)
    assert [puppet.killed for puppet in stage.puppets] == [True, False]
    assert 120 < stage.times()[1] < 140


def test_two_missed_answers_are_forgiven() -> None:
    stage = Stage(healthy=lambda url, now: not 95 < now < 115)
    stage.run(one(health_url=HEALTH), 300)
    assert len(stage.started) == 1


def test_a_child_that_has_not_answered_yet_is_given_time() -> None:
    stage = Stage(healthy=never)
    stage.run(one(health_url=HEALTH), 600)
    assert len(stage.started) == 1


def test_children_are_stopped_in_the_opposite_order() -> None:
    stage = Stage(healthy=always)
    assert stage.run([ChildSpec("first", ("x",)), ChildSpec("last", ("x",))], 5) == 0
    assert [line for line in stage.said if "stopping" in line] == [
        "last: stopping",
        "first: stopping",
    ]


@pytest.mark.parametrize(("hurry", "seconds"), [(False, 15.0), (True, 0.0)])
def test_a_deaf_child_is_killed_after_a_while_or_at_once_in_haste(
    hurry: bool, seconds: float
) -> None:
    stage = Stage(healthy=always)

    def healthy(url: str, now: float) -> bool:
        stage.puppets[0].deaf = True
        return True

    stage._healthy = healthy
    stage.run(one(health_url=HEALTH), 5, hurry)
    (puppet,) = stage.puppets
    assert puppet.killed and puppet.terminated_at is not None
    assert stage.now - puppet.terminated_at == pytest.approx(seconds, abs=0.2)


def test_the_last_words_of_a_child_are_repeated() -> None:
    stage = Stage(1.0, None, healthy=never)
    stage.run(one(), 3)
    assert any(
        line.startswith("one: ended (exit 1): the end; starting again") for line in stage.said
    )


def test_a_child_that_is_wanted_later_is_started_and_stopped_when_it_is_not() -> None:
    stage = Stage(healthy=always)
    new = ChildSpec("new", ("x",))
    stage.run(one(), 60, changing=lambda: [new] if 10 <= stage.now < 40 else [])
    assert [name for _, name in stage.started] == ["one", "new"]
    assert stage.times()[1] == pytest.approx(10, abs=0.3)
    first, later = stage.puppets
    assert later.terminated_at == pytest.approx(40, abs=0.3)
    assert not later.killed and first.terminated_at == pytest.approx(60, abs=0.3)


def test_what_is_wanted_from_the_start_goes_before_the_rest_and_is_stopped_last() -> None:
    stage, new = Stage(healthy=always), [ChildSpec("new", ("x",))]
    assert stage.run([ChildSpec("rest", ("x",))], 5, changing=lambda: new) == 0
    assert [name for _, name in stage.started] == ["new", "rest"]
    assert [line for line in stage.said if "stopping" in line] == [
        "rest: stopping",
        "new: stopping",
    ]


def test_every_end_of_a_child_that_comes_and_goes_is_told_unless_it_was_asked_to_go() -> None:
    told: list[str] = []
    coming = [ChildSpec("coming", ("x",))]
    stage = Stage(1.0, None, 1.0, None, healthy=never)
    stage.run(one(), 20, changing=lambda: coming if stage.now < 10 else [], on_end=told.append)
    assert told == ["coming", "coming"]


def test_a_deaf_child_that_is_not_wanted_is_killed_while_the_others_are_looked_after() -> None:
    stage = Stage(None, 22.0, None, healthy=always)
    new = ChildSpec("new", ("x",))

    def changing() -> list[ChildSpec]:
        for puppet in stage.puppets[:1]:
            puppet.deaf = True
        return [new] if stage.now < 20 else []

    stage.run(one(), 60, changing=changing)
    assert stage.puppets[0].killed
    # `one` died at 22 s and was started again before the deaf one was killed at 35.
    assert [name for _, name in stage.started] == ["new", "one", "one"]
    assert 22 < stage.times()[2] < 25


def test_a_wanted_child_that_dies_is_started_again_and_a_changed_one_anew() -> None:
    stage = Stage(10.0, None, None, None, healthy=always)
    specs = [ChildSpec("new", ("x",)), ChildSpec("new", ("y",))]
    stage.run([], 60, changing=lambda: [specs[stage.now > 30]])
    assert [name for _, name in stage.started] == ["new"] * 3
    assert stage.times()[1:] == pytest.approx([11, 30.4], abs=0.6)
