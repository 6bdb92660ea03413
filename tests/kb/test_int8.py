"""8-bit weights: the same vectors, nearly, and torch where they would not be."""

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from kb import int8
from kb.models import locate

pytest.importorskip("openvino", reason="openvino is installed on machines without a GPU only")
pytestmark = pytest.mark.real

TEXTS = [
    "passage: Fire doors are checked every Monday at 08:30.",
    "passage: " + "第三十三条 用人单位变更名称、法定代表人等事项，不影响劳动合同的履行。" * 9,
    "query: ¿Quién firma?",
    "query: a",
    "passage: " + "The dose is 12.5 mg/kg, twice a day, for adults over 60 kg. " * 40,
]


@pytest.fixture(scope="module")
def folder(models_home: Path) -> str:
    return locate("bundled:multilingual-e5-small", models_home)


@pytest.fixture(scope="module")
def kept(folder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the converted weights."""
    keep = tmp_path_factory.mktemp("int8")
    assert int8.hasten(_model(folder), keep)
    return keep


def _model(folder: str) -> SentenceTransformer:
    return SentenceTransformer(folder, device="cpu")


def _vectors(model: SentenceTransformer) -> Any:
    return model.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)


def _no_conversion(*_: object) -> None:
    raise AssertionError("converted again")


def test_vectors_stay_as_near_as_promised_to_those_of_float32(folder: str, kept: Path) -> None:
    model = _model(folder)
    exact = _vectors(model)
    assert int8.hasten(model, kept)
    assert (exact * _vectors(model)).sum(axis=1).min() > 0.999


def test_a_text_has_the_same_vector_alone_and_beside_longer_ones(folder: str, kept: Path) -> None:
    model = _model(folder)
    int8.hasten(model, kept)
    together = _vectors(model)
    for text, vector in zip(TEXTS, together, strict=True):
        assert model.encode(text, normalize_embeddings=True) @ vector > 0.999


def test_no_weights_are_kept_as_floats_not_even_the_table_of_words(folder: str, kept: Path) -> None:
    floats = sum(p.numel() * 4 for p in _model(folder).parameters())
    assert sum(file.stat().st_size for file in kept.glob("*.bin")) < 0.3 * floats


def test_the_weights_are_converted_once(
    folder: str, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "_convert", _no_conversion)
    assert int8.hasten(_model(folder), kept)


def test_what_earlier_versions_kept_is_deleted_and_other_models_weights_stay(
    folder: str, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (now,) = kept.glob("*.xml")
    before = f"{now.stem.split('-')[0]}-{'0' * 16}"
    another = f"{'f' * 16}-{'0' * 16}"
    for stem in ("0123456789abcdef", before, another):
        for ending in (".xml", ".bin"):
            (tmp_path / f"{stem}{ending}").write_bytes(b"kept")
    monkeypatch.setattr(
        int8, "_convert", lambda _, file: shutil.copytree(kept, file.parent, dirs_exist_ok=True)
    )
    assert int8.hasten(_model(folder), tmp_path)
    assert {f.stem for f in tmp_path.glob("*.*") if f.name != ".lock"} == {now.stem, another}


def test_kept_weights_that_are_torn_leave_the_model_on_torch(
    folder: str, kept: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for file in kept.glob("*.xml"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
        weights = file.with_suffix(".bin").read_bytes()
        (tmp_path / file.with_suffix(".bin").name).write_bytes(weights[: len(weights) // 2])
    model = _model(folder)
    exact = _vectors(model)
    with caplog.at_level(logging.WARNING):
        assert not int8.hasten(model, tmp_path)
    assert "stays on torch" in caplog.text
    assert np.array_equal(exact, _vectors(model))


def test_a_model_whose_vectors_would_move_stays_on_torch(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = _model(folder)
    exact = _vectors(model)
    monkeypatch.setattr(int8, "_LEVELS", 3)
    with caplog.at_level(logging.WARNING):
        assert not int8.hasten(model, tmp_path)
    assert "cosine" in caplog.text
    assert np.array_equal(exact, _vectors(model))


def test_a_model_of_another_kind_stays_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from sentence_transformers.models import StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    words = Tokenizer(WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    model = SentenceTransformer(modules=[StaticEmbedding(words, embedding_dim=4)], device="cpu")
    with caplog.at_level(logging.WARNING):
        assert not int8.hasten(model, tmp_path)
    assert "no transformer" in caplog.text
