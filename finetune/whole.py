"""Whether the files of a base model are whole, before anything is made of them. Loads no weights.

A copy that broke off, or a shard that was forgotten, is refused by libraries late, in words that
name no file, and in exceptions of their own kind.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from kb.errors import BadData

_WEIGHTS = "model.safetensors"
_INDEX = f"{_WEIGHTS}.index.json"
_READ_FIRST = ("config.json", "tokenizer_config.json", "generation_config.json")


def check(located: str) -> None:
    """Of what `kb.models.locate` returned, if that is a folder: files of a hub id are fetched, and
    checked, when they are loaded. Raises BadData naming the file.

    Only headers are read, which say how long a file must be: milliseconds for any size.
    """
    folder = Path(located)
    if not folder.is_dir():
        return
    for name in _READ_FIRST:
        if (folder / name).is_file():
            json_object(folder / name)
    for file in _weights(folder):
        try:
            with safe_open(file, framework="pt"):
                pass
        except FileNotFoundError as error:
            raise BadData(f"{file}: is not there, and {_INDEX} names it") from error
        except (OSError, SafetensorError) as error:
            said = " ".join(str(error).split())[:200]
            raise BadData(f"{file}: damaged or cut off: {said}") from error


def _weights(folder: Path) -> Iterator[Path]:
    """As transformers looks for them: one file before several."""
    if (folder / _WEIGHTS).is_file():
        yield folder / _WEIGHTS
    elif (index := folder / _INDEX).is_file():
        parts = json_object(index).get("weight_map")
        if not isinstance(parts, dict) or not parts:
            raise BadData(f"{index}: has no weight_map")
        yield from (folder / name for name in sorted(set(map(str, parts.values()))))


def json_object(file: Path) -> dict[str, Any]:
    """What a file holds. Raises BadData naming it."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadData(f"{file}: cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise BadData(f"{file}: is no JSON object")
    return found
