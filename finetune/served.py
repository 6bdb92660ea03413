"""The release that a candidate is held against: the one that is served, or one that is named.

Better than the bare base is no gain where people are answered by a release already. Loads no
weights.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from finetune.settings import TrainSettings
from kb import release, shipped
from kb.errors import BadConfiguration, BadData
from kb.manifest import BASE, Base, Manifest
from kb.models import shown

CURRENT = "current"


@dataclass(frozen=True, slots=True)
class Served:
    """A release, and the folder of its adapter or whole model."""

    id: str
    folder: Path


def find(
    settings: TrainSettings,
    base_files: Mapping[str, str],
    home: Path,
    report: Callable[[str], None],
) -> Served | None:
    """What `eval.against` names; None for the base alone, and where an adapter that is served has
    another base than the candidate, which is reported.

    Raises BadConfiguration for a named release that is not there or has another base, BadData for
    one that is damaged.
    """
    model, wanted = shown(settings.model_name_or_path), settings.eval.against
    id_ = _current(model, home) if wanted == CURRENT else wanted
    if id_ == BASE:
        return None
    manifest, place = _read(id_, home)
    if manifest.kind == "adapter" and not _is_of(manifest.base, model, base_files):
        told = f"{id_} is an adapter of another base, {manifest.base.name}"
        if wanted != CURRENT:
            raise BadConfiguration(f"eval.against: {told}")
        report(f"{told}: not compared with it")
        return None
    part = release.ADAPTER if manifest.kind == "adapter" else release.MODEL
    return Served(id_, place / part)


def _current(model: str, home: Path) -> str:
    """Where nobody has chosen yet, what a server would begin with."""
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
    raise BadConfiguration(f"eval.against: there is no release {id_!r} in {own.parent}")


def _is_of(base: Base, model: str, files: Mapping[str, str]) -> bool:
    """By the weights where both are known, else by name."""
    return base.files == files if base.files and files else base.name == model
