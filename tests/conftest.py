"""What every room's tests share: the bundled models, unpacked once for the whole run."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kb import models


@pytest.fixture(autouse=True, scope="module")
def _imported_for_good() -> Iterator[None]:
    """Modules are no garbage: looking through them took 10 of 24 s of sixteen tiny trainings, since
    accelerate collects at the start of each."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def models_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose `models/` holds every bundled model that is installed.

    VADEMECUM_TEST_MODELS names a folder to keep them in, so that the next run starts at once. Two
    processes of one run share them: a lock lets one of them unpack.
    """
    if kept := os.environ.get("VADEMECUM_TEST_MODELS"):
        home = Path(kept)
    elif "PYTEST_XDIST_WORKER" in os.environ:
        home = tmp_path_factory.getbasetemp().parent / "models_home"
    else:
        home = tmp_path_factory.mktemp("models_home")
    for bundled in models.BUNDLED.values():
        if models.installed(bundled):
            models.locate(models.PREFIX + bundled.name, home)
    return home
