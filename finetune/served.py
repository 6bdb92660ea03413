"""The release that a candidate is held against: the one that is served, or one that is named.

Better than the bare base is no gain where people are answered by a release already. Loads no
weights.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from finetune.candidates import Candidate
from finetune.settings import TrainSettings
from kb import release, shipped
from kb.errors import BadConfiguration, BadData
from kb.manifest import BASE, Base, Manifest
from kb.models import shown
from kb.prompt import PROMPT_VERSION

CURRENT = "current"


@dataclass(frozen=True, slots=True)
class Served:
    """A release, and the folder of its adapter or whole model."""

    id: str
    folder: Path


def look(settings: TrainSettings, home: Path) -> None:
    """Whether a release that `eval.against` names is there and whole, before there is a candidate.
    Raises BadConfiguration, BadData."""
    if settings.eval.against not in (CURRENT, BASE):
        _read(settings.eval.against, home)


def find(
    settings: TrainSettings,
    candidate: Candidate,
    base_files: Mapping[str, str],
    home: Path,
    report: Callable[[str], None],
) -> Served | None:
    """What `eval.against` names; None for the base alone, and where what is served cannot be asked
    the same as the candidate, which is reported.

    Raises BadConfiguration for a named release of which that is so, and for one that is not there;
    BadData for one that is damaged.
    """
    model, wanted = shown(settings.model_name_or_path), settings.eval.against
    id_ = _current(model, home) if wanted == CURRENT else wanted
    if id_ == BASE:
        return None
    manifest, place = _read(id_, home)
    if told := _apart(manifest, candidate, model, base_files):
        if wanted != CURRENT:
            raise BadConfiguration(f"eval.against: {told}")
        report(f"{told}: not compared with it")
        return None
    part = release.ADAPTER if manifest.kind == "adapter" else release.MODEL
    return Served(id_, place / part)


def _current(model: str, home: Path) -> str:
    """Where nobody has chosen yet, the release that ships for this base."""
    if release.is_chosen(home):
        return release.current(home)
    known = shipped.of(model)
    return known[-1].id if known else BASE


def _read(id_: str, home: Path) -> tuple[Manifest, Path]:
    try:
        own = release.folder(home, id_)
    except BadData as error:
        raise BadConfiguration(f"eval.against: {error}") from error
    for place in (own, shipped.FOLDER / id_):
        if place.is_dir():
            return release.read(place), place
    raise BadConfiguration(
        f"eval.against: there is no release {id_!r} in {own.parent} (`base` for none)"
    )


def _apart(
    manifest: Manifest, candidate: Candidate, model: str, files: Mapping[str, str]
) -> str | None:
    """Why the two cannot be asked the same. Of another base words and tokens are others, so that
    perplexities say nothing; peft holds no soft prompt beside other adapters."""
    if not _is_of(manifest.base, model, files):
        return f"{manifest.id} has another base, {manifest.base.name}"
    if manifest.prompt_version != PROMPT_VERSION:
        return f"{manifest.id} was made for prompt version {manifest.prompt_version}"
    if candidate.is_adapter and candidate.config.get("peft_type") != "LORA":
        return f"{manifest.id} cannot be held in memory beside this kind of adapter"
    return None


def _is_of(base: Base, model: str, files: Mapping[str, str]) -> bool:
    """By the weights where both are known, else by name."""
    return base.has(files) if base.files and files else base.name == model
