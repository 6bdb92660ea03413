"""A fresh knowledge base for each test of this room."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kb.bases import Base


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Base]:
    made = Base(tmp_path / "kb" / "handbook")
    yield made
    made.close()
