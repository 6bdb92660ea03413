"""`finetune train` and `finetune merge`."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from finetune.cli_options import AsJson, Config, Sets
from finetune.settings import load
from kb import settings as kb_settings


def register(cli: typer.Typer) -> None:
    """Add this file's commands."""
    cli.command("train")(train)
    cli.command("merge")(merge)


def train(config: Config, sets: Sets = None, as_json: AsJson = False) -> None:
    """Train as the configuration says; a run that was cut off goes on."""
    from transformers.utils.logging import disable_progress_bar  # heavy: not for `--help`

    from finetune import train as training

    disable_progress_bar()  # type: ignore[no-untyped-call]  # of loading weights; a run has its own

    settings = load(config, sets or [])
    done = training.train(settings, kb_settings.load().home, _say)
    if as_json and done:
        print(json.dumps(done, ensure_ascii=False))
    elif done:
        _show(done, settings.output_dir)


def merge(
    config: Config,
    sets: Sets = None,
    quantize: Annotated[
        Literal["none", "4bit"], typer.Option(help="4bit: NF4 weights, for large models.")
    ] = "none",
    as_json: AsJson = False,
) -> None:
    """Write a finished run's weights as one model folder."""
    from finetune import merge as merging

    settings = load(config, sets or [])
    done = merging.merge(settings, kb_settings.load().home, _say, quantize)
    if as_json:
        print(json.dumps(done, ensure_ascii=False))
    else:
        print(f"{done['folder']} ({done['bytes'] / 1e6:,.1f} MB)")


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
