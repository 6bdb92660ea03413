"""Which models `finetune eval` asks, and what a report says of them. Judges nothing itself."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from finetune import candidates, served
from finetune.chat import KEY
from finetune.engines import HttpEngine
from finetune.evaluate import Models
from finetune.settings import EvalSettings, TrainSettings
from kb.errors import BadConfiguration
from kb.manifest import BASE
from kb.models import locate, shown
from kb.prompt import PROMPT_VERSION

Report = Callable[[str], None]
_FILES = ("questions", "grounding", "choice", "maths", "text")


@dataclass(frozen=True, slots=True)
class Names:
    """Where the models are served, and under which names; no URL: they run in this process."""

    url: str = ""
    base: str = ""
    candidate: str = ""


def open_engines(
    settings: TrainSettings, folder: Path | None, names: Names, home: Path, report: Report
) -> tuple[Models, dict[str, Any]]:
    """The models, and what eval.json says of them.

    Raises BadData if the run has no result, BadConfiguration for what a server cannot be asked or a
    release that is not there, and ModelBroken. Weights are hashed where they are asked, and a
    release is asked too: nobody knows what a server has.
    """
    about: dict[str, Any] = {
        "evaluated": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "model": shown(settings.model_name_or_path),
        "prompt_version": PROMPT_VERSION,
        "context_tokens": settings.room,
        "seed": settings.seed,
        "settings": _without_folders(settings.eval),
    }
    if names.url:
        return _served(settings, folder, names, about)
    from finetune import local  # torch: not for a server

    chosen = candidates.at(folder) if folder else candidates.of_run(settings)
    located = locate(settings.model_name_or_path, home, report=report)
    about |= {"files": chosen.hashes(), "base_files": candidates.base_files(located)}
    seeds = candidates.of_seeds(settings)
    held = served.find(settings, chosen, about["base_files"], home, report)
    base, candidate, *others = local.together(
        located,
        {_title(settings, chosen): chosen.folder}
        | {f"seed {seed}": one.folder for seed, one in seeds.items()}
        | ({f"release {held.id}": held.folder} if held else {}),
    )
    base.name = shown(settings.model_name_or_path)
    if held:
        others[-1].name = held.id
    release = others.pop() if held else None
    return Models(base, candidate, dict(zip(seeds, others, strict=True)), release), about


def _served(
    settings: TrainSettings, folder: Path | None, names: Names, about: dict[str, Any]
) -> tuple[Models, dict[str, Any]]:
    if not names.candidate:
        raise BadConfiguration("--engine needs --candidate, the tuned model's name there")
    if folder:
        raise BadConfiguration("--adapter: a server has its own; name it with --candidate")
    if settings.eval.seeds:
        raise BadConfiguration("eval.seeds: runs with other seeds are not asked of --engine")
    if settings.eval.against not in (served.CURRENT, BASE):
        raise BadConfiguration("eval.against: a release is not asked of --engine")
    key = os.environ.get(KEY, "")
    base, candidate = (HttpEngine(names.url, n, key=key) for n in (names.base, names.candidate))
    return Models(base, candidate), about


def _without_folders(settings: EvalSettings) -> dict[str, Any]:
    """A release carries this to other machines: of files, only what they are called."""
    told = settings.model_dump(mode="json")
    return {
        key: [Path(file).name for file in value] if key in _FILES else value
        for key, value in told.items()
    }


def _title(settings: TrainSettings, chosen: candidates.Candidate) -> str:
    """`bundled (adapter)`: the run's name says more than `adapter` does."""
    inside = chosen.folder.parent == settings.output_dir
    return settings.output_dir.name if inside else chosen.folder.name
