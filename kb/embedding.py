"""Text -> unit vectors. Local weights through sentence-transformers, or a remote /v1/embeddings.

Knows the contract that queries and passages may need different prompts, and nothing of chunks or
storage. A deterministic fake ships here so that tests need no weights.
"""

import ctypes
import hashlib
import logging
import re
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import httpx
import numpy as np
import numpy.typing as npt

from kb.errors import EmbedderDown, ModelBroken
from kb.languages import Languages, measured
from kb.models import locate
from kb.settings import KbSettings
from kb.words import words

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Vectors = npt.NDArray[np.float32]


class Embedder(Protocol):
    """`queries` and `passages` return float32 of shape (n, dimensions), each row of unit length."""

    @property
    def name(self) -> str:
        """Identity of the vector space; vectors of different names must never meet."""
        ...

    @property
    def dimensions(self) -> int: ...

    def queries(self, texts: Sequence[str]) -> Vectors: ...

    def passages(self, texts: Sequence[str]) -> Vectors: ...

    @property
    def languages(self) -> Languages | None:
        """What a language adds to its vectors, None where that is nothing. Raises EmbedderDown."""
        ...


def open_embedder(settings: KbSettings, home: Path) -> Embedder:
    """The embedder that the settings name; `fake:64` is for tests.

    Raises ModelNotFound, ModelBroken, EmbedderDown.
    """
    if settings.embedder.startswith("fake:"):
        return FakeEmbedder(int(settings.embedder.removeprefix("fake:")))
    if settings.embedder_url:
        return RemoteEmbedder(settings.embedder, settings.embedder_url, settings.embedder_key)
    return LocalEmbedder(settings.embedder, locate(settings.embedder, home), home / "models")


class LocalEmbedder:
    """sentence-transformers on this machine. Thread-safe: one encode at a time.

    Without a GPU it computes on OpenVINO with 8-bit weights (`kb.int8`) where that is installed,
    else in bfloat16 where the processor has instructions for it, else in float32. What comes out
    is float32 of unit length either way, and the vectors of these ways have a cosine of 0.998 and
    more to each other.
    """

    def __init__(self, name: str, folder: str, keep: Path) -> None:
        # The trainer's library for 4-bit weights, imported by peft with it, would warn of a kernel
        # that nothing here wants.
        logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
        # Imported here: it takes seconds, and most commands never embed.
        from sentence_transformers import SentenceTransformer

        from kb import int8

        try:
            if int8.suits():
                self._model = SentenceTransformer(folder, device="cpu")
                hastened = int8.hasten(self._model, keep / "int8")
            else:
                hastened = False
            if not hastened:
                self._model = SentenceTransformer(folder, model_kwargs=_precision())
        except (OSError, ValueError, KeyError) as error:
            raise ModelBroken(f"the embedder {name} cannot be loaded: {error}") from error
        _give_back()
        self._lock = threading.Lock()
        self._name = name
        dimensions = self._model.get_embedding_dimension()
        if not dimensions:
            raise ModelBroken(f"the embedder {name} does not say how many dimensions it has")
        self._dimensions = dimensions

    @property
    def model(self) -> "SentenceTransformer":
        """The bare model, for measuring what it can do by itself."""
        return self._model

    @property
    def name(self) -> str:
        return self._name

    @property
    def dimensions(self) -> int:
        return self._dimensions

    @cached_property
    def languages(self) -> Languages | None:
        return measured(self)

    def queries(self, texts: Sequence[str]) -> Vectors:
        return self._encode(texts, "query")

    def passages(self, texts: Sequence[str]) -> Vectors:
        return self._encode(texts, "passage")

    def _encode(self, texts: Sequence[str], prompt: str) -> Vectors:
        if not texts:
            return np.zeros((0, self._dimensions), np.float32)
        # E5 models carry both prompts; a model without them is used bare.
        name = prompt if prompt in self._model.prompts else None
        with self._lock:
            vectors = self._model.encode(
                list(texts),
                prompt_name=name,
                batch_size=32,
                # Done below: in bfloat16, lengths come out up to 0.2% wrong.
                normalize_embeddings=False,
                show_progress_bar=False,
                convert_to_numpy=True,
            )
        return _unit(np.asarray(vectors, np.float32))


def _precision() -> dict[str, str]:
    """What makes the model load as bfloat16 if this processor computes in it. A GPU's own
    default is left alone."""
    from torch import cuda

    if cuda.is_available():
        return {}
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return {}
    return {"dtype": "bfloat16"} if re.search(r"\b(avx512_bf16|amx_bf16)\b", flags) else {}


def _give_back() -> None:
    """Hand back what loading needed and the C library keeps: 280 MB with the bundled model."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):  # a C library other than glibc
        return


def _unit(vectors: Vectors) -> Vectors:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), np.float32)


class RemoteEmbedder:
    """An OpenAI-compatible /v1/embeddings, with E5's prompts when the model's name says E5."""

    def __init__(
        self, name: str, url: str, key: str = "", client: httpx.Client | None = None
    ) -> None:
        self._name = name
        self._url = f"{url.rstrip('/').removesuffix('/v1')}/v1/embeddings"
        # Calls in a row share a connection; one that idled may be closed as it is used again.
        limits = httpx.Limits(keepalive_expiry=1)
        self._client = client or httpx.Client(timeout=60, limits=limits)
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._prompts = ("query: ", "passage: ") if "e5" in name.lower() else ("", "")
        self._dimensions = 0  # not known before the first answer
        self._dimensions = int(self._post([self._prompts[0] + "dimensions"]).shape[1])

    @property
    def name(self) -> str:
        return self._name

    @property
    def dimensions(self) -> int:
        return self._dimensions

    @cached_property
    def languages(self) -> Languages | None:
        return measured(self)

    def queries(self, texts: Sequence[str]) -> Vectors:
        return self._post([self._prompts[0] + t for t in texts])

    def passages(self, texts: Sequence[str]) -> Vectors:
        return self._post([self._prompts[1] + t for t in texts])

    def _post(self, texts: list[str]) -> Vectors:
        if not texts:
            return np.zeros((0, self._dimensions), np.float32)
        try:
            reply = self._client.post(
                self._url, json={"model": self._name, "input": texts}, headers=self._headers
            )
            reply.raise_for_status()
            rows = sorted(reply.json()["data"], key=lambda row: int(row["index"]))
            vectors = np.asarray([row["embedding"] for row in rows], np.float32)
            if vectors.ndim != 2 or len(vectors) != len(texts):
                raise ValueError(f"{len(rows)} vectors for {len(texts)} texts")
            if self._dimensions not in (0, vectors.shape[1]):
                raise ValueError(f"{vectors.shape[1]} dimensions, not {self._dimensions}")
            if not np.isfinite(vectors).all():
                raise ValueError("a vector holds what is not a number")
        except (httpx.HTTPError, KeyError, TypeError, ValueError) as error:
            raise EmbedderDown(f"the embedder at {self._url} did not answer: {error}") from error
        return _unit(vectors)


class FakeEmbedder:
    """Words hashed into a few dimensions: deterministic, instant, and similar texts are near."""

    def __init__(self, dimensions: int = 64) -> None:
        self._dimensions = dimensions

    @property
    def name(self) -> str:
        return f"fake-{self._dimensions}"

    @property
    def dimensions(self) -> int:
        return self._dimensions

    @property
    def languages(self) -> Languages | None:
        return None

    def queries(self, texts: Sequence[str]) -> Vectors:
        return self.passages(texts)

    def passages(self, texts: Sequence[str]) -> Vectors:
        out = np.full((len(texts), self._dimensions), 1e-3, np.float32)
        for row, text in zip(out, texts, strict=True):
            for word in words(text):
                row[hashlib.blake2b(word.encode(), digest_size=2).digest()[0] % len(row)] += 1
        return np.asarray(out / np.linalg.norm(out, axis=1, keepdims=True), np.float32)
