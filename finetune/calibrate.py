"""A few real steps of a run, in a process of its own: how fast it is and how much memory it takes.

    python -m finetune.calibrate < job.json

Two steps on rows of common length (the first only warms up), then one on the heaviest batch, with
the optimizer's state already there. Nothing of it is kept. Knows nothing of estimates.
"""

import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from finetune import heap
from finetune.progress import Progress
from finetune.rows import Row, write
from finetune.settings import TrainSettings
from kb.errors import TrainingStopped

STEPS = 3
MOST_BATCHES = 2
"""Of a step, where the run has more: with the second, gradients of the first are held too."""
SECONDS = 1800
"""After which a calibration has told enough: the run would take days."""
_RESULT = "calibration: "


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured. `peak` in bytes: resident, or of the GPU."""

    tokens_per_second: float
    rows_per_second: float
    peak: int
    seconds: float
    """Inside steps."""


def calibrate(
    run: TrainSettings, home: Path, common: Sequence[Row], heaviest: Sequence[Row]
) -> Calibration:
    """Measure a run on rows of common length and on its heaviest batch. Raises TrainingStopped if
    it did not come to an end, with what the run itself said."""
    with tempfile.TemporaryDirectory(prefix="vademecum-calibrate-") as folder:
        job = {"home": str(home.resolve()), "run": short(run, Path(folder), common, heaviest)}
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "finetune.calibrate"],
                input=json.dumps(job),
                capture_output=True,
                text=True,
                env=environment(os.environ),
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise TrainingStopped(
                f"{STEPS} steps took more than {SECONDS // 60} minutes"
            ) from error
    for line in done.stdout.splitlines():
        if line.startswith(_RESULT):
            return Calibration(**json.loads(line.removeprefix(_RESULT)))
    if done.returncode == -9:
        raise TrainingStopped("the system ended the calibration run: too little memory")
    said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    raise TrainingStopped(f"the calibration run failed: {said[-1]}")


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """That of a process which is to see one GPU: transformers would spread a batch over all, which
    `finetune.arguments` refuses, as only launchers start a run on several."""
    first = environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    return {**heap.environment(environ), "CUDA_VISIBLE_DEVICES": first}


def short(
    run: TrainSettings, folder: Path, common: Sequence[Row], heaviest: Sequence[Row]
) -> dict[str, Any]:
    """The run, over few rows in the order of their steps."""
    batches = min(run.gradient_accumulation_steps, MOST_BATCHES)
    if run.stage == "grpo":  # its answers must divide a step
        batches = run.gradient_accumulation_steps
    step = run.per_device_train_batch_size * batches
    rows = [*islice(cycle(common), step * (STEPS - 1)), *islice(cycle(heaviest), step)]
    if run.packing:  # all batches are alike, and `heaviest` are the rows that fill one
        rows = [*heaviest] * (batches * STEPS)
    write(rows, folder / "train.jsonl")
    chosen = {
        "output_dir": folder / "run",
        "dataset": folder / "train.jsonl",
        "gradient_accumulation_steps": batches,
        "max_steps": STEPS,
        "resume_from_checkpoint": False,
        "report_to": "none",
    }
    return run.model_copy(update=chosen).model_dump(mode="json")


class Watch(Progress):
    """Says nothing, and keeps (tokens, seconds) as they were at the end of each step."""

    def __init__(self) -> None:
        super().__init__(out=io.StringIO())
        self.steps = [(0, 0.0)]

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        super().on_step_end(*args, **kwargs)
        self.steps.append((self.tokens, self.seconds))


def measure(run: TrainSettings, home: Path) -> Calibration:
    """In this process."""
    from transformers import set_seed
    from transformers.trainer_utils import SaveStrategy

    from finetune import device, models, stages, trainset
    from finetune.parts import Parts, Run
    from kb.models import locate

    set_seed(run.seed)
    rows = trainset.load(run)
    bf16 = device.has_bf16() if run.bf16 is None else run.bf16
    folder = locate(run.model_name_or_path, home)
    tokenizer = models.tokenizer(folder)
    model = models.load(folder, run, bf16=bf16, pad=tokenizer.pad_token_id)
    watch = Watch()
    trainer, _ = stages.prepare(Parts(run, rows, model, tokenizer, bf16), watch)
    trainer.args.save_strategy = SaveStrategy.NO
    assert isinstance(trainer, Run)
    trainer.in_order = run.stage != "grpo"
    trainer.train()
    (tokens, seconds), (later_tokens, later) = watch.steps[1:3]
    step = run.per_device_train_batch_size * run.gradient_accumulation_steps
    return Calibration(
        tokens_per_second=(later_tokens - tokens) / (later - seconds),
        rows_per_second=step / (later - seconds),
        peak=int(device.peak_mb() * 2**20),
        seconds=watch.seconds,
    )


def main() -> None:
    job = json.load(sys.stdin)
    done = measure(TrainSettings.model_validate(job["run"]), Path(job["home"]))
    sys.stdout.write(f"{_RESULT}{json.dumps(asdict(done))}\n")


if __name__ == "__main__":
    main()
