"""Models of the sizes that people tune, with random weights: speed and memory are the same.

The shapes are Qwen2.5's (arXiv 2412.15115, table 1, and the config.json of each release), with the
bundled tokenizer, so that rows render as everywhere else.
"""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, Qwen2Config

from kb.merging import copy_tokenizer


def _qwen(
    hidden: int, inner: int, layers: int, heads: int, keys: int, words: int, tied: bool
) -> PretrainedConfig:
    return Qwen2Config(
        vocab_size=words,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=keys,
        max_position_embeddings=32_768,
        tie_word_embeddings=tied,
    )


SHAPES = {
    "0.5B": _qwen(896, 4_864, 24, 14, 2, 151_936, True),
    "1.5B": _qwen(1_536, 8_960, 28, 12, 2, 151_936, True),
    "7B": _qwen(3_584, 18_944, 28, 28, 4, 152_064, False),
}


def save(name: str, folder: Path, tokenizer: str, device: str) -> Path:
    """A model folder in bfloat16, seeded, made once; `tokenizer` is a folder to take it from."""
    if not (folder / "config.json").is_file():
        torch.manual_seed(0)
        with torch.device(device):
            model = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                SHAPES[name], dtype=torch.bfloat16
            )
        model.save_pretrained(folder)
        copy_tokenizer(tokenizer, folder)
    return folder
