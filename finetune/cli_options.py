"""The options that every `finetune` command has."""

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[Path, typer.Argument(help="A YAML file; see docs/finetuning.md.")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="key=value over the file's.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
