"""A server goes on answering while, and after, its knowledge bases are made anew."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.knowledge import KnowledgeBases
from kb.embedders import Embedders
from kb.embedding import FakeEmbedder
from kb.errors import StoreBroken
from kb.layout import DATABASE
from kb.remake import Remake, wanted
from kb.settings import KbSettings
from kb.store import Store
from tests.app.serving import HERE, Home


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    made.write("hours.md", "The pharmacy opens at 8:15.")
    # The server was started again with another embedder than its knowledge base has.
    settings = KbSettings(embedder="fake:32")
    others = Embedders(settings, tmp_path)
    made.bases = KnowledgeBases(made.catalog, FakeEmbedder(32), settings, others=others)
    made.client = TestClient(made.app(), base_url=HERE)
    yield made
    made.bases.close()


def ask(home: Home) -> tuple[str, int]:
    body = {"query": "pharmacy opens"}
    reply = home.client.post(f"/v1/vector_stores/{home.handbook}/search", json=body).json()
    return reply["data"][0]["filename"], home.bases.get("handbook").store.generation()


def test_it_answers_with_the_old_and_then_with_the_new_embedder(home: Home) -> None:
    assert ask(home) == ("hours.md", 1)
    store = Store(home.catalog.get("handbook").folder / DATABASE)
    work = Remake(store, wanted("fake-32", KbSettings()), FakeEmbedder(32))
    work.step(100)
    assert ask(home) == ("hours.md", 1)
    work.finish()
    assert ask(home) == ("hours.md", 2)
    assert home.bases.get("handbook").search("pharmacy").hits[0].filename == "hours.md"
    store.close()


def test_one_whose_embedder_is_gone_does_not_keep_the_others_from_answering(home: Home) -> None:
    other = home.catalog.add("other", "bundled:no-such-model", 1)
    assert [kb.name for kb in home.bases.all()] == ["handbook"]
    with pytest.raises(StoreBroken, match="embedded with bundled:no-such-model"):
        home.bases.get(other.id)
