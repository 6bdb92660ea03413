"""A fresh home for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ingest.homes import Home


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path / "home")
    yield made
    for reader in made.opened:
        reader.close()
