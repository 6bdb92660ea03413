"""The options that every `finetune` command has, the configuration, and what `--dry-run` says."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from finetune import rules, settings
from finetune.settings import TrainSettings

Config = Annotated[Path, typer.Argument(help="A YAML file; see docs/finetuning.md.")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="key=value over the file's.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


def load(config: Path, sets: Sequence[str] | None) -> TrainSettings:
    """The configuration of a command. Raises BadConfiguration, also for rules in `allow` that there
    are not: settings know none."""
    loaded = settings.load(config, sets or ())
    rules.refuse_unknown(loaded.allow)
    return loaded


def would(command: str, as_json: bool, **what: object) -> None:
    """`would COMMAND: key value, ...`, or as JSON."""
    if as_json:
        said = {"dry_run": True, "command": command} | what
        typer.echo(json.dumps(said, ensure_ascii=False, default=str))
    else:
        told = ", ".join(f"{key} {value}" for key, value in what.items())
        typer.echo(f"would {command}: {told}")
