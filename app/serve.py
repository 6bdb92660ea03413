"""`python -m app.serve`: the server process, built from the configuration and run by uvicorn."""

import logging
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import uvicorn

from app import fit
from app.answer import Answerer
from app.auth import Keys
from app.children import BAD_CONFIGURATION, is_cpu_build
from app.engine import Engine
from app.engines import going_on
from app.gate import is_loopback
from app.knowledge import KnowledgeBases
from app.launch import Engines
from app.lineup import Serving
from app.main import create_app
from app.merging import merge
from app.profile import Profile
from app.releases import Releases
from app.settings import AppSettings, EngineSettings
from kb.catalog import Catalog
from kb.embedders import Embedders
from kb.errors import BadConfiguration, VademecumError
from kb.manifest import Manifest
from kb.models import locate
from kb.settings import Configuration, KbSettings, load

log = logging.getLogger(__name__)
_DRAIN_SECONDS = 10
_IDLE_SECONDS = 75


def serve(configuration: Configuration) -> bool:
    """Run until SIGINT or SIGTERM; False if it never came to listen, which uvicorn then logs.

    Raises BadConfiguration, ModelNotFound, ModelBroken, EmbedderDown.
    """
    app = configuration.section("app", AppSettings)
    engine = configuration.section("engine", EngineSettings)
    settings = configuration.section("kb", KbSettings)
    keys = Keys(configuration.home / "keys.json")
    if not is_loopback(app.host) and not keys.list():
        raise BadConfiguration(
            f"[app] host = {app.host!r} can be reached from other machines, and no key exists:"
            " make one first (vademecum keys create NAME --scope chat), or listen on 127.0.0.1"
        )
    embedders = Embedders(settings, configuration.home)
    embedder = embedders.today()
    embedder.queries(["warm"])  # the first call compiles and allocates
    kb = KnowledgeBases(Catalog(configuration.home), embedder, settings, others=embedders)
    _open(kb)
    releases = _releases(configuration.home, app, engine, settings)
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(app, kb=kb, releases=releases, keys=keys),
            host=app.host,
            port=app.port,
            access_log=False,
            server_header=False,
            log_level="warning",
            timeout_graceful_shutdown=_DRAIN_SECONDS,
            # Longer than clients keep an idle connection (httpx and openai: 5 s, as uvicorn's
            # default): whoever closes first must not be the one who is being asked.
            timeout_keep_alive=_IDLE_SECONDS,
        )
    )
    try:
        server.run()
    except SystemExit:  # uvicorn's own when it cannot listen, with a 3 that means something else
        if server.started:
            raise
    return server.started


def _releases(home: Path, app: AppSettings, engine: EngineSettings, kb: KbSettings) -> Releases:
    """The releases of a home, with the one that was served last."""

    def serve(manifest: Manifest | None, peer: Engine) -> Serving:
        profile = Profile.of(engine, app, manifest.serving if manifest else None)
        return Serving(manifest, peer, Answerer(peer, profile))

    def misfits(manifest: Manifest) -> Sequence[str]:
        base = "" if engine.url else locate(engine.model, home)
        return fit.misfits(manifest, model=engine.model, weights_in=base, kb=kb)

    cpu = is_cpu_build()
    return Releases(
        home,
        Engines(home, engine, cpu=cpu, merge=partial(merge, home, engine.model)),
        serve,
        misfits,
        current=going_on(home, engine, kb, cpu=cpu, report=log.error),
        keep_seconds=engine.keep_seconds,
        stall_seconds=2 * engine.timeout_seconds,  # an engine may be silent for one of them
    )


def _open(kb: KnowledgeBases) -> None:
    """Read what exists now rather than at the first question. What cannot be read keeps nobody
    from the rest: /health/ready tells, and a request for it is refused."""
    try:
        kb.all()
    except VademecumError as error:
        log.error("%s", error)


def main() -> int:
    """Exit codes: 0 stopped, 1 failed, 3 bad configuration."""
    # uvicorn takes the signals while it serves, drains, and then raises them again.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for library in ("httpx", "sentence_transformers"):
        logging.getLogger(library).setLevel(logging.WARNING)
    # Read when the libraries are imported, which the embedder does.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        return 0 if serve(load()) else 1
    except VademecumError as error:
        log.error("%s", "; ".join(str(error).splitlines()))
        return BAD_CONFIGURATION if isinstance(error, BadConfiguration) else 1


if __name__ == "__main__":
    sys.exit(main())
