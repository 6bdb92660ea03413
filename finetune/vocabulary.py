"""The tokenizer of a base model, or which file of its folder is the reason that there is none."""

from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from finetune.whole import json_object
from kb.errors import BadData, ModelBroken, one_line

FILE = "tokenizer.json"
_OLDER = ("vocab.json", "added_tokens.json", "special_tokens_map.json")


def load(located: str) -> PreTrainedTokenizerBase:
    """Of what `kb.models.locate` returned, as it is there. Raises BadData naming a folder's file,
    ModelBroken for a hub id."""
    folder = Path(located)
    try:
        made = AutoTokenizer.from_pretrained(located)
    except Exception as error:  # tokenizers raises nothing narrower
        if folder.is_dir():
            raise _blamed(folder, one_line(error)) from error
        raise ModelBroken(f"{located}: the tokenizer cannot be read: {one_line(error)}") from error
    assert isinstance(made, PreTrainedTokenizerBase)
    if folder.is_dir() and not (folder / FILE).is_file() and _is_empty(made):
        raise _blamed(folder, f"{type(made).__name__} knows special tokens alone")
    return made


def _is_empty(made: PreTrainedTokenizerBase) -> bool:
    """Without a vocabulary most kinds of tokenizer are made all the same, and lose every word."""
    return set(made.get_vocab()) <= {*made.get_added_vocab(), *made.all_special_tokens}


def _blamed(folder: Path, said: str) -> BadData:
    """The error for a tokenizer that cannot be made. Raises BadData itself for the first file that
    cannot even be read."""
    file = folder / FILE
    for name in (FILE, *_OLDER):
        if (folder / name).is_file():
            json_object(folder / name)
    if not file.is_file():
        return BadData(f"{file}: is not there, and other files make no tokenizer: {said}")
    try:
        Tokenizer.from_file(str(file))
    except Exception as error:  # as above
        raise BadData(f"{file}: is no tokenizer: {one_line(error)}") from error
    return BadData(f"{folder}: tokenizer_config.json and {FILE} make no tokenizer: {said}")
