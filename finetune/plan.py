"""`finetune plan`: what a run should be, what it will take, and how long; each line with its rule.

The rows and the configuration are looked at as `doctor` does; then, unless it is not wanted or
cannot fit, a few real steps are run (`finetune.calibrate`). Nothing of it is kept.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from finetune import advice, doctor
from finetune.advice import Advice
from finetune.calibrate import Calibration, calibrate
from finetune.doctor import Diagnosis, Model
from finetune.memory import Machine
from finetune.outlook import Outlook, gb
from finetune.problems import Problem
from finetune.settings import TrainSettings
from kb.errors import BadData, TrainingStopped

Report = Callable[[str], None]
Calibrate = Callable[[TrainSettings, Outlook], Calibration]


@dataclass(frozen=True, slots=True)
class Plan:
    """Lines of advice, what the checks hold against the run, and what was measured."""

    lines: tuple[Advice, ...]
    problems: tuple[Problem, ...]
    outlook: Outlook
    measured: Calibration | None = None
    seconds: float | None = None
    """Of the whole run; None where nothing was measured."""
    failed: str = ""
    """Why not, if the steps could not be run."""

    @property
    def too_little(self) -> str:
        """Why the run cannot fit; empty if it can."""
        return next((p.text for p in self.problems if p.check == "memory" and p.is_serious), "")


def plan(
    settings: TrainSettings, model: Model, on: Machine, measure: Calibrate | None = None
) -> Plan:
    """Advise; with `measure`, after a few steps. Raises BadData if no row can be trained on."""
    found = doctor.examine(settings, model, on=on)
    seen = found.outlook
    if seen is None:
        raise BadData(found.serious[0].text if found.serious else "no row can be trained on")
    made = tuple(advice.advise(found.facts, seen))
    if measure is None or not seen.enough:
        return Plan((*made, _unmeasured(seen)), found.problems, seen)
    try:
        measured = measure(settings, seen)
    except TrainingStopped as error:  # what is known without the steps is worth telling
        return Plan((*made, _unmeasured(seen)), found.problems, seen, failed=str(error))
    seconds = _seconds(settings, found, measured)
    line = _time(settings, found, seconds, measured)
    return Plan((*made, line), found.problems, seen, measured, seconds)


def measuring(home: Path, report: Report) -> Calibrate:
    """Really measures, in a process of its own."""

    def measure(settings: TrainSettings, seen: Outlook) -> Calibration:
        report("a few steps, to see how fast and how large it is (--dry-run leaves them out)")
        return calibrate(settings, home, seen.common, seen.heaviest)

    return measure


def _seconds(settings: TrainSettings, found: Diagnosis, measured: Calibration) -> float:
    """Of the steps of a run; evaluations and checkpoints come on top."""
    rows = _rows(settings, found)
    if settings.stage == "grpo":  # most of its time goes into drawing answers
        # A step is of so many answers, not rows.
        answers = rows if settings.max_steps > 0 else rows * settings.num_generations
        return answers / measured.rows_per_second
    tokens = rows * found.ledger.tokens / found.ledger.rendered
    if settings.stage in ("rm", "dpo"):
        tokens *= 2  # the rejected answer stands behind the same prompt
    return tokens / measured.tokens_per_second


def _rows(settings: TrainSettings, found: Diagnosis) -> float:
    """That a run sees, each as often as it sees it."""
    if settings.max_steps > 0:
        step = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
        packed = settings.cutoff_len * found.ledger.rendered / found.ledger.tokens
        return settings.max_steps * step * (packed if settings.packing else 1)
    return settings.num_train_epochs * found.ledger.rendered


def _time(
    settings: TrainSettings, found: Diagnosis, seconds: float, measured: Calibration
) -> Advice:
    speed = f"{measured.tokens_per_second:,.0f} tokens/s"
    if settings.stage == "grpo":
        speed = f"{measured.rows_per_second:.2g} answers/s"
    why = (
        f"{found.ledger.tokens:,} tokens an epoch, {speed} and a peak of {gb(measured.peak)}"
        f" measured in {measured.seconds:.0f} s; without evaluations"
    )
    return Advice("time", str(tqdm.format_interval(seconds)), why, "epochs")


def _unmeasured(seen: Outlook) -> Advice:
    why = "nothing was measured" if seen.enough else "it does not fit"
    return Advice("time", "unknown", why, "epochs")
