"""What the server's tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.serving import HOURS, Home


@pytest.fixture(scope="session")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """As `home`, one for all tests that change nothing in it."""
    one = Home(tmp_path_factory.mktemp("still"))
    one.write("hours.md", HOURS)
    yield one
    one.close()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A server over a knowledge base that holds one document."""
    one = Home(tmp_path)
    one.write("hours.md", HOURS)
    yield one
    one.close()
