"""`finetune train` and `finetune merge`."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from finetune.cli_options import AsJson, Config, DryRun, Sets, load, would
from finetune.settings import TrainSettings
from kb import settings as kb_settings


def register(cli: typer.Typer) -> None:
    """Add this file's commands."""
    cli.command("train")(train)
    cli.command("merge")(merge)


def train(
    config: Config, sets: Sets = None, dry_run: DryRun = False, as_json: AsJson = False
) -> None:
    """Train as the configuration says; a run that was cut off goes on."""
    settings = load(config, sets)
    if dry_run:
        _would_train(settings, as_json)
        return
    from transformers.utils.logging import disable_progress_bar  # heavy: not for `--help`

    from finetune import train as training

    disable_progress_bar()  # type: ignore[no-untyped-call]  # of loading weights; a run has its own

    done = training.train(settings, kb_settings.load().home, _say)
    if as_json and done:
        print(json.dumps(done, ensure_ascii=False))
    elif done:
        _show(done, settings.output_dir)


def merge(
    config: Config,
    sets: Sets = None,
    quantize: Annotated[
        Literal["none", "4bit"],
        typer.Option(help="4bit: NF4 weights, for transformers; vLLM does not load them."),
    ] = "none",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Write a finished run's weights as one model folder."""
    from finetune import merge as merging

    settings = load(config, sets)
    if dry_run:
        would("merge", as_json, folder=merging.target(settings, quantize), quantize=quantize)
        return
    done = merging.merge(settings, kb_settings.load().home, _say, quantize)
    if as_json:
        print(json.dumps(done, ensure_ascii=False))
    else:
        print(f"{done['folder']} ({done['bytes'] / 1e6:,.1f} MB)")


def _would_train(settings: TrainSettings, as_json: bool) -> None:
    """What is refused before weights are loaded is refused here too."""
    from finetune import device, models, runs, trainset

    models.check(settings)
    rows = trainset.load(settings)
    wanted = runs.decisive(settings, rows.sha256, device.processes(os.environ))
    finished = runs.finished(settings.output_dir, wanted) is not None
    checkpoint = None if finished else runs.resumed(settings, wanted)
    would(
        "train",
        as_json,
        stage=settings.stage,
        finetuning_type=settings.finetuning_type,
        model=settings.model_name_or_path,
        rows=len(rows.train),
        held_out=sum(map(len, rows.held_out.values())),
        output_dir=settings.output_dir,
        begins="nowhere, it is finished" if finished else checkpoint or "at the first step",
    )


def _show(done: dict[str, Any], folder: Path) -> None:
    for name, loss in done["losses"].items():
        print(f"loss ({name}): {loss['first']:.4f} -> {loss['last']:.4f}, best {loss['best']:.4f}")
    print(
        f"{done['steps']} steps, {done['tokens_seen']:,} tokens, {done['tokens_per_second']} tok/s,"
        f" peak {done['peak_memory_mb']:,} MB, {done['seconds']:.0f} s"
    )
    print(f"{folder / done['result']} (step {done['best_step']})")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
