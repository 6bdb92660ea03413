"""Embedders give unit vectors of float32, whoever makes them; a remote one that fails says so."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from kb.embedding import Embedder, FakeEmbedder, LocalEmbedder, RemoteEmbedder, open_embedder
from kb.errors import EmbedderDown, ModelBroken
from kb.models import locate
from kb.settings import KbSettings

TEXTS = ["aspirin dose", "dose of aspirin", "劳动合同", "", "😀"]


def assert_unit(vectors: np.ndarray[Any, Any], n: int, dimensions: int) -> None:
    assert vectors.shape == (n, dimensions)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)


# -- the fake ------------------------------------------------------------------------------------


def test_the_fake_gives_unit_vectors_and_always_the_same() -> None:
    vectors = FakeEmbedder(32).passages(TEXTS)
    assert_unit(vectors, len(TEXTS), 32)
    assert np.array_equal(vectors, FakeEmbedder(32).queries(TEXTS))


def test_similar_texts_are_near_in_the_fake() -> None:
    first, second, other, *_ = FakeEmbedder().passages(TEXTS)
    assert first @ second > 0.7 > 0.3 > first @ other


def test_no_text_gives_no_vector() -> None:
    assert FakeEmbedder(8).passages([]).shape == (0, 8)


def test_the_fake_is_opened_by_its_name(tmp_path: Path) -> None:
    made: Embedder = open_embedder(KbSettings(embedder="fake:48"), tmp_path)
    assert (made.name, made.dimensions) == ("fake-48", 48)


# -- a remote one --------------------------------------------------------------------------------


class Peer:
    """A /v1/embeddings: a text's vector tells its length; answers come in reverse order."""

    def __init__(self, change: Callable[[Any], Any] = lambda body: body, status: int = 200) -> None:
        self.requests: list[httpx.Request] = []
        self.change = change
        self.status = status
        self.working = True

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        texts = json.loads(request.content)["input"]
        rows = [{"index": i, "embedding": [len(t), 1.0, 0.0]} for i, t in enumerate(texts)]
        whole = {"object": "list", "data": rows[::-1]}
        if self.working:
            return httpx.Response(200, json=whole)
        return httpx.Response(self.status, json=self.change(whole))

    def sent(self) -> list[str]:
        texts: list[str] = json.loads(self.requests[-1].content)["input"]
        return texts

    def embedder(self, name: str = "m", url: str = "http://peer", key: str = "") -> RemoteEmbedder:
        return RemoteEmbedder(name, url, key, httpx.Client(transport=httpx.MockTransport(self)))


def test_remote_vectors_follow_the_order_of_the_texts_and_have_unit_length() -> None:
    vectors = Peer().embedder().passages(["a", "a" * 9])
    assert_unit(vectors, 2, 3)
    assert np.allclose(vectors[1], np.array([9, 1, 0]) / np.sqrt(82), atol=1e-6)


def test_a_remote_embedder_learns_its_dimensions() -> None:
    assert Peer().embedder().dimensions == 3


@pytest.mark.parametrize(
    "url", ["http://peer", "http://peer/", "http://peer/v1", "http://peer/v1/"]
)
def test_a_base_url_may_end_in_v1_or_not(url: str) -> None:
    peer = Peer()
    peer.embedder(url=url)
    assert str(peer.requests[0].url) == "http://peer/v1/embeddings"


def test_e5_gets_its_prompts_and_others_get_none() -> None:
    peer = Peer()
    e5 = peer.embedder("intfloat/Multilingual-E5-small")
    e5.queries(["q"])
    assert peer.sent() == ["query: q"]
    e5.passages(["p"])
    assert peer.sent() == ["passage: p"]
    peer.embedder("bge-m3").queries(["q"])
    assert peer.sent() == ["q"]


def test_the_key_is_sent_only_when_there_is_one() -> None:
    peer = Peer()
    peer.embedder(key="secret")
    assert peer.requests[-1].headers["Authorization"] == "Bearer secret"
    peer.embedder()
    assert "Authorization" not in peer.requests[-1].headers


def test_no_text_asks_nobody() -> None:
    peer = Peer()
    embedder = peer.embedder()
    asked = len(peer.requests)
    assert embedder.passages([]).shape == (0, 3)
    assert len(peer.requests) == asked


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_a_remote_error_means_that_the_embedder_is_down(status: int) -> None:
    peer = Peer(status=status)
    embedder = peer.embedder()
    peer.working = False
    with pytest.raises(EmbedderDown, match=f"http://peer/v1/embeddings.*{status}"):
        embedder.passages(["a"])


@pytest.mark.parametrize(
    "change",
    [
        lambda body: {"data": body["data"][:1]},
        lambda body: {"data": []},
        lambda body: {"data": None},
        lambda body: {"data": ["text"]},
        lambda body: body["data"],
        lambda body: {"error": "busy"},
        lambda body: {"data": [{"index": i, "embedding": None} for i in range(2)]},
        lambda body: {"data": [{"index": i, "embedding": [0.5] * (i + 1)} for i in range(2)]},
        lambda body: {"data": [{"index": i, "embedding": "AAAA"} for i in range(2)]},
        lambda body: {"data": [{"index": i, "embedding": [0.5] * 4} for i in range(2)]},
        lambda body: {"data": [{"index": i, "embedding": [1.0, None, 0.0]} for i in range(2)]},
        lambda body: None,
    ],
)
def test_an_answer_without_a_vector_for_each_text_means_down(change: Callable[[Any], Any]) -> None:
    peer = Peer(change)
    embedder = peer.embedder()
    peer.working = False
    with pytest.raises(EmbedderDown):
        embedder.passages(["a", "b"])


def test_a_remote_that_cannot_be_reached_is_down() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    client = httpx.Client(transport=httpx.MockTransport(refuse))
    with pytest.raises(EmbedderDown, match="refused"):
        RemoteEmbedder("m", "http://peer", client=client)


# -- a local one ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def local(models_home: Path) -> LocalEmbedder:
    name = "bundled:multilingual-e5-small"
    if not (models_home / "models" / "multilingual-e5-small").is_dir():
        pytest.skip("the bundled embedder is not installed")
    return LocalEmbedder(name, locate(name, models_home), models_home / "models")


@pytest.mark.real
def test_local_vectors_are_unit_float32(local: LocalEmbedder) -> None:
    assert_unit(local.passages(TEXTS), len(TEXTS), local.dimensions)
    assert_unit(local.queries(TEXTS), len(TEXTS), local.dimensions)
    assert local.passages([]).shape == (0, local.dimensions)


@pytest.mark.real
def test_a_query_and_a_passage_of_the_same_words_differ_by_their_prompts(
    local: LocalEmbedder,
) -> None:
    (query,), (passage,) = local.queries(["aspirin"]), local.passages(["aspirin"])
    assert query @ passage < 0.999
    bare = local.model.encode("query: aspirin")
    assert bare @ query > 0.9999 * np.linalg.norm(bare)


@pytest.mark.real
def test_similar_texts_are_nearer_across_languages(local: LocalEmbedder) -> None:
    (query,) = local.queries(["How long may the probation period last?"])
    near, chinese, far = local.passages(
        [
            "The probation period must not exceed six months.",
            "试用期不得超过六个月。",
            "Aspirin reduces fever and pain.",
        ]
    )
    assert query @ near > query @ chinese > query @ far


@pytest.mark.real
def test_weights_that_cannot_be_read_are_said_to_be_broken(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelBroken, match="mine"):
        LocalEmbedder("mine", str(tmp_path), tmp_path)
