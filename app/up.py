"""`vademecum up`: the story of a start, from the lock to the ready line.

One supervisor a home; weights are unpacked first, then engine, ingest and server run under
`app.supervisor`. Messages go to standard error; standard output gets the one line `ready URL`.
"""

import errno
import os
import signal
import socket
import sys
import time
from collections.abc import Callable

from app import children, prepare
from app.settings import AppSettings, EngineSettings
from app.supervisor import Supervisor, World, on_this_machine
from kb.errors import BadConfiguration, VademecumError
from kb.locks import exclusive
from kb.models import locate
from kb.settings import Configuration

LOCK = "supervisor.lock"
LEFTOVER_SECONDS = 5.0
"""How long a port may stay in use by what an earlier, killed run is just leaving behind."""


class PortTaken(VademecumError):
    """Another program listens on a port that is needed here."""


class Stop:
    """Set by the first SIGINT or SIGTERM; a second one asks for haste."""

    def __init__(self) -> None:
        self._signals = 0

    def listen(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._count)

    def _count(self, *_: object) -> None:
        self._signals += 1

    def asked(self) -> bool:
        return self._signals > 0

    def in_haste(self) -> bool:
        return self._signals > 1


def up(configuration: Configuration) -> int:
    """Run until asked to stop. Returns the exit code; raises WriterBusy, PortTaken and
    BadConfiguration before anything is started."""
    app = configuration.section("app", AppSettings)
    engine = configuration.section("engine", EngineSettings)
    home = configuration.home
    if not engine.url and app.port == engine.port:
        raise BadConfiguration(
            f"[app] port and [engine] port are both {app.port}: choose another for one of them"
        )
    (home / "docs").mkdir(parents=True, exist_ok=True)
    stop = Stop()
    with exclusive(home / LOCK, f"home {home} (stop that `vademecum up`, or choose --home): it"):
        stop.listen()
        if app.port == 0:
            app = app.model_copy(update={"port": free_port(app.host)})
        await_port(app.host, app.port, "[app] port, VADEMECUM_APP__PORT or --port")
        if not engine.url:
            await_port(children.LOOPBACK, engine.port, "[engine] port or VADEMECUM_ENGINE__PORT")
        world = on_this_machine(home / "logs", say)
        say(f"home is {home}; logs are in {home / 'logs'}")
        if prepare.is_needed(configuration):
            code = run_once(children.prepare(home), world, stop)
            if code is not None:
                return code
        return _run(configuration, app, engine, world, stop)


def _run(
    configuration: Configuration,
    app: AppSettings,
    engine: EngineSettings,
    world: World,
    stop: Stop,
) -> int:
    home, cores = configuration.home, len(os.sched_getaffinity(0))
    specs = [children.ingest(home, cores), children.server(app, home, cores)]
    if engine.url:
        say(f"using the engine at {engine.url}")
    else:
        folder = locate(engine.model, home, report=say)
        specs.insert(0, children.engine(engine, folder, home, cores))
        say(f"starting the engine with {engine.model}; this takes about a minute")
    url = children.server_url(app)
    return Supervisor(
        specs, world, ready_url=f"{url}/health/ready", on_ready=lambda: announce(url)
    ).run(stop.asked, stop.in_haste)


def run_once(spec: children.ChildSpec, world: World, stop: Stop) -> int | None:
    """Run a preparing child to its end, repeating what it says. Returns None to go on, or the
    exit code to end with."""
    say("first start: unpacking the bundled weights, about half a minute, once")
    child = world.start(spec)
    while (code := child.exit_code()) is None:
        if stop.asked():
            child.kill()
            return 0
        world.sleep(0.1)
    if code == 0:
        return None
    for line in child.last_lines(10):
        say(line)
    return code if code in spec.permanent else 1


def say(message: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {message}\n")
    sys.stderr.flush()


def announce(url: str) -> None:
    sys.stdout.write(f"ready {url}\n")
    sys.stdout.flush()


def await_port(
    host: str,
    port: int,
    setting: str,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return when `port` can be listened on. Raises PortTaken naming it and the `setting`."""
    until = clock() + LEFTOVER_SECONDS
    while not _is_free(host, port):
        if clock() >= until:
            raise PortTaken(
                f"port {port} is taken by another program: stop that, or choose another with"
                f" {setting}"
            )
        sleep(0.2)


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: a connection that is only winding down does not hold a port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise PortTaken(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return True


def free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
