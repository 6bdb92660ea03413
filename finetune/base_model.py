"""The base of a run as far as it is known without weights: tokenizer, shape, stops, languages."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from finetune import candidates, models, shape, whole
from finetune.doctor import Model
from finetune.settings import TrainSettings
from kb.errors import ModelBroken
from kb.models import describe, locate

Report = Callable[[str], None]


def known(settings: TrainSettings, home: Path, report: Report) -> Model:
    """Raises ModelNotFound, BadData for a damaged file and for an adapter folder that is none, and
    ModelBroken for a hub id."""
    folder = locate(settings.model_name_or_path, home, report=report)
    whole.check(folder)
    tokenizer = models.tokenizer(folder)
    bundled = describe(settings.model_name_or_path)
    adapter = settings.adapter_name_or_path
    return Model(
        tokenizer=tokenizer,
        shape=shape.of(folder),
        stops=stops(tokenizer, Path(folder)),
        languages=bundled.languages if bundled else (),
        adapter=candidates.at(adapter).config if adapter else None,
    )


def stops(tokenizer: PreTrainedTokenizerBase, folder: Path) -> frozenset[int]:
    """The tokens at which the engine stops: the tokenizer's end and generation_config.json's."""
    file = folder / "generation_config.json"
    try:
        said: Any = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise ModelBroken(f"{file}: cannot be read: {error}") from error
    ends = said.get("eos_token_id")
    found = {ends} if isinstance(ends, int) else set(ends or ())
    if tokenizer.eos_token_id is not None:
        found.add(tokenizer.eos_token_id)
    return frozenset(found)
