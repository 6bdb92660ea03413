"""`vademecum up`: the story of a start, from the lock to the ready line.

One supervisor a home; weights are unpacked first, then engine, ingest and server run under
`app.supervisor`. Messages go to standard error; standard output gets the one line `ready URL`.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from app import beginning, children, engines, prepare
from app.children import ChildSpec
from app.engines import Wanted
from app.ports import await_port, free_port
from app.settings import AppSettings, EngineSettings
from app.supervisor import Supervisor
from app.world import World, on_this_machine
from kb.errors import BadConfiguration, BadData
from kb.locks import exclusive
from kb.merging import is_merged
from kb.models import locate
from kb.settings import Configuration, KbSettings

LOCK = "supervisor.lock"


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
        beginning.begin(configuration, report=say)
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
    changing = _engines(home, engine, configuration.section("kb", KbSettings), cores)
    url = children.server_url(app)
    return Supervisor(
        specs,
        world,
        ready_url=f"{url}/health/ready",
        on_ready=lambda: announce(url),
        changing=changing,
        on_end=partial(_note_end, home),
    ).run(stop.asked, stop.in_haste)


def _engines(
    home: Path, engine: EngineSettings, kb: KbSettings, cores: int
) -> Callable[[], Sequence[ChildSpec]]:
    """Declare the engine of what is served, and follow what the server declares later."""
    if engine.url:
        say(f"using the engine at {engine.url}")
        return tuple
    children.must_have_engine()
    cpu = children.is_cpu_build()
    base = locate(engine.model, home, report=say)
    manifest = engines.own_at_start(home, engine, kb, cpu=cpu, report=say)
    if manifest is not None and not is_merged(home, manifest):
        say(f"the base answers: release {manifest.id} was not merged; logs/prepare.log says why")
        manifest = None
    # One engine, however many there were: what was kept for a rollback is started at need.
    engines.write(home, [engines.own(home, manifest, engine.port)])
    with_ = f"release {manifest.id}" if manifest else engine.model
    say(f"starting the engine with {with_}; this takes about a minute")

    declared: list[Wanted] = []

    def changing() -> Sequence[ChildSpec]:
        nonlocal declared
        try:
            declared = engines.read(home)
        except BadData as error:  # somebody's hand; what runs goes on
            say(str(error))
        return [children.engine(engine, one, base, home, cores, cpu=cpu) for one in declared]

    return changing


def _note_end(home: Path, engine: str) -> None:
    try:
        engines.note_end(home, engine)
    except OSError as error:  # a full disk: who waits for that engine waits longer
        say(f"{engine}: {error}")


def run_once(spec: ChildSpec, world: World, stop: Stop) -> int | None:
    """Run a preparing child to its end, repeating what it says. Returns None to go on, or the
    exit code to end with."""
    say("preparing weights, about half a minute, once")
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
