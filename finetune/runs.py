"""A run's folder: may it begin, does it go on, is it finished; curves; and run.json, written last.

train.lock        held by the process that trains
begun.json        what decides the run: settings and data. A resume must agree with it.
checkpoint-N/     whole checkpoints; .saving/ is one that is being written
adapter/, model/  the result, taken from the best checkpoint
losses.png
run.json          what was done, with what, how well. Where it is, the run is complete.
"""

import json
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import metadata
from pathlib import Path
from typing import Any

from finetune.checkpoints import is_whole, last
from finetune.settings import TrainSettings
from kb import locks
from kb.durable import replace
from kb.errors import BadConfiguration

BEGUN = "begun.json"
DONE = "run.json"
CURVES = "losses.png"
_LOCK = "train.lock"
_PROCESSES = "processes"
_LIBRARIES = ("torch", "transformers", "peft", "trl", "accelerate", "bitsandbytes", "vademecum")
_FREE = {
    "output_dir",
    "dataset",
    "report_to",
    "logging_steps",
    "save_steps",
    "eval_steps",
    "save_total_limit",
    "patience",
    "resume_from_checkpoint",
    "allow",
    "data",
    "eval",
    "release",
}
"""Keys that may differ when a run goes on: they do not change what a step does."""


def decisive(settings: TrainSettings, data: str, processes: int) -> dict[str, Any]:
    """What two runs must share to be one; `data` is the hash of the rows, which each process takes
    its part of. One process is not worth a word."""
    chosen = settings.model_dump(mode="json")
    wanted = {k: v for k, v in chosen.items() if k not in _FREE} | {"rows": data}
    return wanted | ({_PROCESSES: processes} if processes > 1 else {})


def alone(folder: Path) -> AbstractContextManager[None]:
    """Hold a run's folder, which is made at need. Raises WriterBusy if another process does: two
    would write one checkpoint."""
    return locks.exclusive(folder / _LOCK, f"output_dir: {folder}")


def finished(folder: Path, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    """The run.json of the same run, if it was finished already, by however many processes."""
    if not (folder / DONE).is_file() or {*_changed(folder, wanted)} - {_PROCESSES}:
        return None
    document = json.loads((folder / DONE).read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


def resumed(settings: TrainSettings, wanted: Mapping[str, Any]) -> Path | None:
    """The checkpoint to go on from. Raises BadConfiguration if the folder holds another run's, or
    the named one is none, or of another run."""
    folder, asked = settings.output_dir, settings.resume_from_checkpoint
    held = last(folder)
    found = asked if isinstance(asked, Path) else held
    if found is None:
        return None
    if not is_whole(found):
        raise BadConfiguration(f"resume_from_checkpoint: {asked} is no whole checkpoint")
    if not asked:
        raise BadConfiguration(
            f"resume_from_checkpoint: false, and output_dir {folder} holds {found.name} of an"
            " earlier run; remove that folder or name another"
        )
    if held and (changed := _changed(folder, wanted)):
        raise BadConfiguration(
            f"output_dir: {folder} holds {held.name} of a run with other {', '.join(changed)};"
            " name another output_dir, or remove it"
        )
    if is_known(found) and (changed := _changed(found.parent, wanted)):
        raise BadConfiguration(
            f"resume_from_checkpoint: {found} is of a run with other {', '.join(changed)}"
        )
    return found


def differences(one: Path, other: Path) -> list[str]:
    """Which of the keys that decide a run differ between two runs' folders."""
    file = one / BEGUN
    return _changed(other, json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {})


def is_known(checkpoint: Path) -> bool:
    """Whether it is told which run a checkpoint is of."""
    return (checkpoint.parent / BEGUN).is_file()


def _changed(folder: Path, wanted: Mapping[str, Any]) -> list[str]:
    file = folder / BEGUN
    begun = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return sorted(k for k in {*begun, *wanted} if begun.get(k) != wanted.get(k))


def write_json(file: Path, document: Mapping[str, Any]) -> None:
    """In one step."""
    replace(file, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def revision() -> str:
    """The commit of this code, with + where it was changed since; empty outside a checkout."""
    here = Path(__file__).parent
    said = []
    for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]):
        try:
            done = subprocess.run(
                ["git", "-C", str(here), *command], capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            return ""
        said.append(done.stdout.strip())
    return said[0] + ("+" if said[1] else "")


def losses(history: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Curves of a trainer's log: `train`, and one for each held-out role."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for entry in history:
        for key, value in entry.items():
            if key == "loss":
                curves.setdefault("train", []).append((entry["step"], value))
            elif key.startswith("eval_") and key.endswith("_loss"):
                curves.setdefault(key[5:-5], []).append((entry["step"], value))
    return curves


def plot(curves: Mapping[str, Sequence[tuple[int, float]]], title: str, file: Path) -> None:
    """Loss by step as PNG, one line a curve."""
    # Not at the top: importing pyplot takes a second, and only this needs it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for name, points in curves.items():
        steps, values = zip(*points, strict=True)
        style = {"alpha": 0.7} if name == "train" else {"marker": "o"}
        axes.plot(steps, values, label=name if name == "train" else f"held out: {name}", **style)
    axes.set(title=title, xlabel="step", ylabel="loss")
    axes.grid(alpha=0.3)
    axes.legend()
    FigureCanvasAgg(figure)
    figure.savefig(file, format="png")
