"""Makes the weights ready that the settings and the current release name: `python -m app.prepare`.

A start that needs it runs it before anything else, so that one process does the work, says so, and
ends. Nothing is loaded for use.
"""

import sys
from pathlib import Path

from app.children import is_cpu_build
from app.engines import own_at_start
from app.settings import EngineSettings
from kb.errors import VademecumError
from kb.manifest import Manifest
from kb.merging import is_merged, merge
from kb.models import describe, is_complete, locate
from kb.settings import Configuration, KbSettings, load


def models(configuration: Configuration) -> list[str]:
    """The models that will run here, as the settings name them."""
    engine = configuration.section("engine", EngineSettings)
    kb = configuration.section("kb", KbSettings)
    here = [] if engine.url else [engine.model]
    remote = kb.embedder_url or kb.embedder.startswith("fake:")
    return here if remote else [*here, kb.embedder]


def is_needed(configuration: Configuration) -> bool:
    """Whether a bundled model waits to be unpacked, or a release to be merged with its base."""
    folder = configuration.home / "models"
    bundled = [describe(name) for name in models(configuration)]
    unpacked = all(b is None or is_complete(folder / b.name) for b in bundled)
    return not unpacked or to_merge(configuration) is not None


def to_merge(configuration: Configuration) -> Manifest | None:
    """The current release, if its own engine starts and its whole weights are not there."""
    settings, home = configuration.section("engine", EngineSettings), configuration.home
    if settings.url:
        return None
    kb, cpu = configuration.section("kb", KbSettings), is_cpu_build()
    # `up` tells what cannot be served; here it is only not prepared.
    release = own_at_start(home, settings, kb, cpu=cpu, report=lambda said: None)
    return None if release is None or is_merged(home, release) else release


def main() -> int:
    """Exit codes: 0 done, 3 a model that cannot be had."""
    try:
        configuration = load()
        for name in models(configuration):
            locate(name, configuration.home, report=_say)
        if (release := to_merge(configuration)) is not None:
            base = locate(configuration.section("engine", EngineSettings).model, configuration.home)
            _say(f"merging release {release.id} with its base")
            _merge(configuration.home, release, base)
    except VademecumError as error:
        _say(str(error))
        return 3
    return 0


def _merge(home: Path, release: Manifest, base: str) -> None:
    try:
        merge(home, release, base)
    except VademecumError as error:  # the base can answer, and `up` sees that it has to
        _say(f"release {release.id}: {error}")


def _say(message: str) -> None:
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
