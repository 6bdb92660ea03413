"""The shared collections, where they are."""

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("VADEMECUM_DATA", "../shared/data")).resolve()


def shared(name: str) -> Path:
    """A file or folder of the shared data; skips the test where it is absent."""
    if not (DATA / name).exists():
        pytest.skip(f"VADEMECUM_DATA names no folder with {name}")
    return DATA / name
