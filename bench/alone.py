"""Ingest and server on a fresh home of their own, without an engine: for benchmarks that search.

The home and its processes are gone afterwards.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from app.ports import free_port
from app.settings import AppSettings, EngineSettings
from bench.server import Target
from kb.catalog import DEFAULT, Catalog
from kb.settings import load

_START_SECONDS = 120
ROOT = Path(__file__).parents[1]


@contextmanager
def alone(more: Mapping[str, str] | None = None) -> Iterator[Target]:
    """`ingest run` and `app.serve` as children, following an empty folder; `more` adds to their
    environment. What they log goes to the home, and is shown when one of them does not start."""
    with tempfile.TemporaryDirectory(prefix="vademecum-bench-") as folder:
        home = Path(folder)
        # Weights that were unpacked already are not unpacked again.
        models = load().home / "models"
        if models.is_dir():
            (home / "models").symlink_to(models.resolve())
        settings = {
            "VADEMECUM_HOME": folder,
            "VADEMECUM_APP__PORT": str(free_port("127.0.0.1")),
            "VADEMECUM_ENGINE__URL": "http://127.0.0.1:9",  # nobody answers there, nobody asks
            **(more or {}),
        }
        configuration = load({**os.environ, **settings})
        app = configuration.section("app", AppSettings)
        engine = configuration.section("engine", EngineSettings)
        at = Target(f"http://127.0.0.1:{app.port}", configuration, app, engine)
        log = home / "log"
        with log.open("wb") as out:
            children = [
                subprocess.Popen(
                    [sys.executable, "-m", *command],
                    cwd=ROOT,
                    env={**os.environ, **settings},
                    stdout=out,
                    stderr=out,
                )
                for command in (("ingest.cli", "run"), ("app.serve",))
            ]
        try:
            if not _is_up(at, children):
                raise SystemExit(log.read_text(encoding="utf-8", errors="replace"))
            yield at
        finally:
            for child in children:
                child.terminate()
            for child in children:
                child.wait()


def _is_up(at: Target, children: list[subprocess.Popen[bytes]]) -> bool:
    """Wait until the server finds the knowledge base and ingest follows it."""
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until and all(child.poll() is None for child in children):
        try:
            parts = httpx.get(f"{at.url}/health/ready").json()["parts"]
            if parts["knowledge_base"] and parts["ingest"]:
                return any(one.name == DEFAULT for one in Catalog(at.configuration.home).all())
        except httpx.HTTPError:
            pass  # not listening yet
        time.sleep(0.1)
    return False
