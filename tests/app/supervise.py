"""Children to supervise: small Python programs that tell their process ids through files.

Run as a program, it supervises some of them, so that a test can kill the supervisor itself.
"""

import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

from app.children import ChildSpec
from app.supervisor import Supervisor
from app.up import Stop
from app.world import Backoff, World, on_this_machine

QUICK = Backoff(first_seconds=0.05, max_seconds=0.1)
TELL = "import os, pathlib; open({file!r}, 'a').write(f'{{os.getpid()}}\\n')\n"
SLEEP = "import time; time.sleep(600)\n"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
PARENT = """
import subprocess, sys
for apart in (False, True):
    subprocess.Popen([sys.executable, "-c", {code!r}], start_new_session=apart)
"""


class Pids:
    """The process ids that a program told through its file, oldest first."""

    def __init__(self, folder: Path, name: str) -> None:
        self.file = folder / f"{name}.pids"
        self.tell = TELL.format(file=str(self.file))

    def all(self) -> list[int]:
        return [int(line) for line in self.file.read_text().split()] if self.file.exists() else []

    def alive(self) -> list[int]:
        return [pid for pid in self.all() if is_alive(pid)]


def python(name: str, code: str, **more: str) -> ChildSpec:
    return ChildSpec(name, (sys.executable, "-I", "-S", "-c", code), **more)  # type: ignore[arg-type]


def family(folder: Path) -> tuple[ChildSpec, Pids, Pids]:
    """A child with two grandchildren that are deaf to SIGTERM, one in a session of its own."""
    child, grandchildren = Pids(folder, "child"), Pids(folder, "grandchildren")
    deaf = DEAF + grandchildren.tell + SLEEP
    return python("family", child.tell + PARENT.format(code=deaf) + SLEEP), child, grandchildren


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def eventually(check: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until `check` holds; fail if it does not in time."""
    until = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < until, "did not happen in time"
        time.sleep(0.01)


def quick(world: World) -> World:
    """The same world, with less time to pass in it."""
    return World(
        say=world.say,
        start=world.start,
        answers=lambda url: False,
        sleep=lambda seconds: time.sleep(seconds / 10),
        rng=random.Random(0),
    )


def main(folder: Path) -> int:
    """Supervise a family until a signal comes."""
    stop = Stop()
    stop.listen()
    spec, _, _ = family(folder)
    world = quick(on_this_machine(folder / "logs", lambda message: print(message, file=sys.stderr)))  # noqa: T201
    supervisor = Supervisor([spec], world, ready_url="", on_ready=lambda: None, backoff=QUICK)
    return supervisor.run(stop.asked, stop.in_haste)


if __name__ == "__main__":
    os.chdir("/")
    sys.exit(main(Path(sys.argv[1])))
