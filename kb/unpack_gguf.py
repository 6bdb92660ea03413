"""A Llama model in one GGUF file -> an ordinary transformers folder.

Knows the GGUF spelling of Llama; knows nothing of wheels, locks or where folders belong
(`kb.models`). Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

transformers reads GGUF itself, but for Llama its `from_pretrained(gguf_file=...)` still asks for
the `gguf` package, and takes the tokenizer's digit rule for granted. So this file joins its parts:
its reader, its dequantisation, its tokenizer builder.
"""

import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kb.errors import ModelBroken

if TYPE_CHECKING:
    import torch
    from transformers import LlamaConfig

# GGUF name -> transformers name; `{}` is the number of the layer.
_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "model.layers.{}.input_layernorm",
    "attn_q": "model.layers.{}.self_attn.q_proj",
    "attn_k": "model.layers.{}.self_attn.k_proj",
    "attn_v": "model.layers.{}.self_attn.v_proj",
    "attn_output": "model.layers.{}.self_attn.o_proj",
    "ffn_norm": "model.layers.{}.post_attention_layernorm",
    "ffn_gate": "model.layers.{}.mlp.gate_proj",
    "ffn_up": "model.layers.{}.mlp.up_proj",
    "ffn_down": "model.layers.{}.mlp.down_proj",
}
_TENSOR = re.compile(r"(?:blk\.(?P<layer>\d+)\.)?(?P<part>\w+)\.weight")

# What a damaged file makes of the parsers underneath; translated once, in `unpack_gguf`.
_DAMAGE = (KeyError, IndexError, ValueError, OverflowError, RuntimeError, struct.error)


def unpack_gguf(source: Path, folder: Path) -> None:
    """Write the model, tokenizer and chat template of a GGUF file into an existing empty folder.

    The weights are dequantised to bfloat16. Raises ModelBroken, naming the file, when it is
    damaged or holds anything but a byte-level-BPE Llama.
    """
    from transformers import GenerationConfig

    generation: Any = GenerationConfig  # untyped in transformers
    try:
        metadata = _metadata(source)
        config = _config(metadata)
        model = _model(config, _tensors(source, config))
        tokenizer = _tokenizer(source, metadata)
    except _DAMAGE as error:
        raise ModelBroken(f"{source.name} is not a GGUF file that can be read: {error}") from error
    # Explicit, so that generation stops at the end of a turn even where config.json is not read.
    model.generation_config = generation(
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _metadata(source: Path) -> dict[str, Any]:
    from transformers.integrations.gguf.reader import read_gguf_metadata

    metadata: dict[str, Any] = read_gguf_metadata(str(source))[0]
    for key, wanted in (("general.architecture", "llama"), ("tokenizer.ggml.model", "gpt2")):
        if metadata[key] != wanted:
            raise ValueError(f"{key} is {metadata[key]!r}, only {wanted!r} is understood")
    return metadata


def _config(metadata: dict[str, Any]) -> "LlamaConfig":
    from transformers import LlamaConfig

    def llama(key: str) -> Any:
        return metadata[f"llama.{key}"]

    def token(key: str) -> Any:
        return metadata[f"tokenizer.ggml.{key}_token_id"]

    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=llama("vocab_size"),
        hidden_size=llama("embedding_length"),
        intermediate_size=llama("feed_forward_length"),
        num_hidden_layers=llama("block_count"),
        num_attention_heads=llama("attention.head_count"),
        num_key_value_heads=llama("attention.head_count_kv"),
        max_position_embeddings=llama("context_length"),
        rms_norm_eps=llama("attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": llama("rope.freq_base")},
        bos_token_id=token("bos"),
        eos_token_id=token("eos"),
        pad_token_id=token("padding"),
    )


def _tensors(source: Path, config: "LlamaConfig") -> "dict[str, torch.Tensor]":
    """All weights under their transformers names, bfloat16."""
    import torch
    from transformers.integrations.gguf.dequant import GGML_BLOCK, dequantize
    from transformers.integrations.gguf.reader import GgufHeader, load_gguf_state_dict

    header = GgufHeader.from_file(str(source))
    stored = load_gguf_state_dict(header)
    heads: dict[str, Any] = {
        "attn_q": config.num_attention_heads,
        "attn_k": config.num_key_value_heads,
    }
    tensors = {}
    for info in header.tensors:
        match = _TENSOR.fullmatch(info.name)
        if match is None or match["part"] not in _NAMES:
            raise ValueError(f"unexpected tensor {info.name}")
        weight = stored[info.name][:]
        if info.ggml_type in GGML_BLOCK:
            weight = dequantize(weight.flatten(), info.ggml_type).reshape(info.shape)
        if match["part"] in heads:
            weight = _split_halves(weight, heads[match["part"]])
        name = _NAMES[match["part"]].format(match["layer"]) + ".weight"
        tensors[name] = weight.to(torch.bfloat16).contiguous()
    return tensors


def _split_halves(weight: "torch.Tensor", heads: int) -> "torch.Tensor":
    """Undo llama.cpp's row order of queries and keys; shape (heads * size, hidden), kept.

    llama.cpp rotates neighbouring rows, transformers rotates row i with row i + size / 2
    (`LlamaModel.permute` in llama.cpp's convert_hf_to_gguf.py).
    """
    rows, hidden = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, hidden)
    return pairs.transpose(1, 2).reshape(rows, hidden)


def _model(config: "LlamaConfig", tensors: "dict[str, torch.Tensor]") -> Any:
    """A LlamaForCausalLM that holds exactly these tensors (ValueError if they are not all)."""
    import torch
    from transformers import LlamaForCausalLM

    llama: Any = LlamaForCausalLM  # untyped in transformers
    # llama.cpp writes the output projection only where it is not the embedding matrix.
    config.tie_word_embeddings = "lm_head.weight" not in tensors
    config.dtype = torch.bfloat16
    with torch.device("meta"):  # no time spent on random weights that are replaced at once
        model = llama(config)
    missing, unexpected = model.load_state_dict(tensors, strict=False, assign=True)
    model.tie_weights()
    if unexpected or set(missing) - ({"lm_head.weight"} if config.tie_word_embeddings else set()):
        raise ValueError(f"tensors missing: {missing}, unexpected: {unexpected}")
    return model


def _tokenizer(source: Path, metadata: dict[str, Any]) -> Any:
    from tokenizers import pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(source.parent), gguf_file=source.name)
    tokenizer.model_max_length = metadata["llama.context_length"]
    if metadata["tokenizer.ggml.pre"] == "smollm":
        # SmolLM was trained with every digit a token of its own (llama.cpp's "smollm" rule and
        # the published tokenizer.json); the builder in transformers does not know this name.
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
    return tokenizer
