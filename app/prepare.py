"""Unpacks the weights that the settings name, and ends: `python -m app.prepare`.

The first start runs it before anything else, so that one process does the work and says so. Knows
names of models only; nothing is loaded for use.
"""

import sys

from app.settings import EngineSettings
from kb.errors import VademecumError
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
    """Whether a bundled model waits to be unpacked."""
    folder = configuration.home / "models"
    bundled = [describe(name) for name in models(configuration)]
    return any(b is not None and not is_complete(folder / b.name) for b in bundled)


def main() -> int:
    """Exit codes: 0 done, 3 a model that cannot be had."""
    try:
        configuration = load()
        for name in models(configuration):
            locate(name, configuration.home, report=_say)
    except VademecumError as error:
        _say(str(error))
        return 3
    return 0


def _say(message: str) -> None:
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
