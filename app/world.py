"""What a supervisor needs of the world: time, chance, processes, the network, and who listens.

All of it is handed in, so that a test can be a world without time. Knows no child.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import httpx

from app.child import Child
from app.children import ChildSpec


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
