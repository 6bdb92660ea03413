"""Where a run's result lies, and what it is: an adapter or a whole model. Loads no weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune import runs
from finetune.settings import TrainSettings
from finetune.whole import json_object
from kb import release
from kb.errors import BadData
from kb.models import folder_of

ADAPTER_CONFIG = "adapter_config.json"
CONFIG = "config.json"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A folder with an adapter (`config` is peft's) or a model (`config` is transformers')."""

    folder: Path
    is_adapter: bool
    config: Mapping[str, Any]

    def hashes(self) -> dict[str, str]:
        """File -> SHA-256, of all that decides what it answers: an adapter's weights and how much
        they weigh; of a model everything, its tokenizer and template too. Raises BadData."""
        if not self.is_adapter:
            return release.hashes(self.folder)
        config = self.folder / ADAPTER_CONFIG
        return {ADAPTER_CONFIG: release.sha256(config), **release.weights(self.folder)}


def of_run(settings: TrainSettings) -> Candidate:
    """What the run made: `adapter/` or `model/` of its folder. Raises BadData where neither is."""
    part = "model" if settings.finetuning_type == "full" else "adapter"
    place = settings.output_dir / part
    if not place.is_dir():
        raise BadData(f"{place}: is not there; run `finetune train` first")
    return at(place)


def at(folder: Path) -> Candidate:
    """Raises BadData for a folder that holds neither an adapter nor a model."""
    for name, is_adapter in ((ADAPTER_CONFIG, True), (CONFIG, False)):
        file = folder / name
        if not file.is_file():
            continue
        return Candidate(folder, is_adapter, json_object(file))
    raise BadData(f"{folder}: holds neither {ADAPTER_CONFIG} nor {CONFIG}")


def base_files(located: str) -> dict[str, str]:
    """File -> SHA-256 of the base's weights; empty for a hub id of which nothing is here yet.
    `located` is what `kb.models.locate` returns."""
    folder = folder_of(located)
    return release.weights(folder) if folder else {}


def of_seeds(settings: TrainSettings) -> dict[int, Candidate]:
    """Runs of `eval.seeds`, each in `OUTPUT_DIR-seedN` beside this one. Raises BadData where one is
    not there, or was trained with anything else than another seed."""
    found = {}
    for seed in settings.eval.seeds:
        run = of_seed(settings, seed)
        found[seed] = of_run(run)
        if differ := set(runs.differences(settings.output_dir, run.output_dir)) - {"seed"}:
            raise BadData(
                f"{run.output_dir}: differs from {settings.output_dir.name} by more than the seed:"
                f" {', '.join(sorted(differ))}"
            )
    return found


def of_seed(settings: TrainSettings, seed: int) -> TrainSettings:
    """The configuration of the same run with another seed, in a folder of its own."""
    place = settings.output_dir.with_name(f"{settings.output_dir.name}-seed{seed}")
    return settings.model_copy(update={"seed": seed, "output_dir": place})
