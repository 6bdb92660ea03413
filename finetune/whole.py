"""Whether the files of a base model are whole, and of one model, before anything is made of them.

A copy that broke off, a shard that was forgotten or a config.json of another model is refused by
libraries late, in words that name no file, and in exceptions of their own kind. Loads no weights.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from kb.errors import BadData, one_line

_WEIGHTS = "model.safetensors"
_CONFIG = "config.json"
_INDEX = f"{_WEIGHTS}.index.json"
_READ_FIRST = (_CONFIG, "tokenizer_config.json", "generation_config.json")

Shapes = Mapping[str, tuple[int, ...]]
"""Tensor -> its sides."""


def check(located: str) -> None:
    """Of what `kb.models.locate` returned, if that is a folder: files of a hub id are fetched, and
    checked, when they are loaded. Raises BadData naming the file.

    Of weights only headers are read, which say how long a file must be and what shapes it holds:
    less than a second for any size.
    """
    folder = Path(located)
    if not folder.is_dir():
        return
    for name in _READ_FIRST:
        if (folder / name).is_file():
            json_object(folder / name)
    held = {file: _shapes(file) for file in _weights(folder)}
    _same(folder, held)


def _shapes(file: Path) -> Shapes:
    try:
        with safe_open(file, framework="pt") as opened:
            names = opened.keys()
            return {name: tuple(opened.get_slice(name).get_shape()) for name in names}
    except FileNotFoundError as error:
        raise BadData(f"{file}: is not there, and {_INDEX} names it") from error
    except (OSError, SafetensorError) as error:
        raise BadData(f"{file}: damaged or cut off: {one_line(error)}") from error


def _same(folder: Path, held: Mapping[Path, Shapes]) -> None:
    """Tensors that have a place in the model of config.json must have the shape of the place. Which
    are missing or too many is not asked: tied and derived ones may be either."""
    from finetune import shape  # it takes seconds, and this module is read where nothing is loaded

    model = shape.blank(str(folder))
    if getattr(model.config, "quantization_config", None):
        return  # stored packed
    places = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    prefix = f"{model.base_model_prefix}."
    for file, shapes in held.items():
        for name, found in shapes.items():
            # As transformers names them: a base model is saved without the prefix of a whole one.
            likely = (name, f"{prefix}{name}", name.removeprefix(prefix))
            place = next((places[one] for one in likely if one in places), found)
            # The same sides in another order may be turned when they are loaded.
            if sorted(place) != sorted(found):
                said = f"{name} is {_by(found)}, by {_CONFIG} it would be {_by(place)}"
                raise BadData(f"{file}: {said}")


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one number"


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
