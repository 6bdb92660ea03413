"""An embedder that computes in half precision gives the vectors that full precision would."""

from pathlib import Path

import numpy as np
import pytest

from kb.embedding import LocalEmbedder, open_embedder
from kb.settings import KbSettings

TEXTS = [
    "Keep vaccines within two and eight degrees; record the temperature twice a day.",
    "用人单位应当自用工之日起一个月内与劳动者订立书面劳动合同。" * 8,
    "Article 12(3)(b): EUR 1,250.00",
    "x",
    "The pharmacy opens at 8:15. " * 60,
]


@pytest.mark.real
def test_half_precision_keeps_directions_and_unit_length(models_home: Path) -> None:
    from sentence_transformers import SentenceTransformer

    embedder = open_embedder(KbSettings(), models_home)
    assert isinstance(embedder, LocalEmbedder)
    folder = models_home / "models" / "multilingual-e5-small"
    exact = SentenceTransformer(str(folder), model_kwargs={"dtype": "float32"})
    for prompt, vectors in (
        ("query", embedder.queries(TEXTS)),
        ("passage", embedder.passages(TEXTS)),
    ):
        wanted = exact.encode(TEXTS, prompt_name=prompt, normalize_embeddings=True)
        assert ((vectors * wanted).sum(axis=1) >= 0.999).all()
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
