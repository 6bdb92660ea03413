"""`python -m app.serve`: the server process, built from the configuration and run by uvicorn."""

import logging
import sys

import uvicorn

from app.answer import Answerer, Profile
from app.auth import Keys
from app.children import BAD_CONFIGURATION, ENGINE_MODEL, LOOPBACK
from app.engine import HttpEngine
from app.gate import is_loopback
from app.knowledge import KnowledgeBases
from app.main import create_app
from app.settings import AppSettings, EngineSettings
from kb.catalog import Catalog
from kb.embedding import open_embedder
from kb.errors import BadConfiguration, VademecumError
from kb.settings import Configuration, KbSettings, load

log = logging.getLogger(__name__)
_DRAIN_SECONDS = 10


def serve(configuration: Configuration) -> None:
    """Run until SIGINT or SIGTERM. Raises BadConfiguration, ModelNotFound, ModelBroken."""
    app = configuration.section("app", AppSettings)
    engine = configuration.section("engine", EngineSettings)
    settings = configuration.section("kb", KbSettings)
    keys = Keys(configuration.home / "keys.json")
    if not is_loopback(app.host) and not keys.list():
        raise BadConfiguration(
            f"[app] host = {app.host!r} can be reached from other machines, and no key exists:"
            " make one first (vademecum keys create NAME --scope chat), or listen on 127.0.0.1"
        )
    embedder = open_embedder(settings, configuration.home)
    embedder.queries(["warm"])  # the first call compiles and allocates
    kb = KnowledgeBases(Catalog(configuration.home), embedder, settings)
    peer = HttpEngine(
        engine.url or f"http://{LOOPBACK}:{engine.port}",
        engine.model if engine.url else ENGINE_MODEL,
        shown=engine.model,
        key=engine.key,
        timeout=engine.timeout_seconds,
    )
    answerer = Answerer(peer, app, Profile.of(engine, app))
    uvicorn.run(
        create_app(app, kb=kb, engine=peer, answerer=answerer, keys=keys),
        host=app.host,
        port=app.port,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )


def main() -> int:
    """Exit codes: 0 stopped, 1 failed, 3 bad configuration."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        serve(load())
    except VademecumError as error:
        log.error("%s", error)
        return BAD_CONFIGURATION if isinstance(error, BadConfiguration) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
