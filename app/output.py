"""How commands print: one JSON document, or lines for people; messages to standard error."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Rows = Sequence[Mapping[str, Any]]


def show(result: Mapping[str, Any] | Rows, as_json: bool) -> None:
    """A document, or rows: a mapping's keys line by line, a sequence as a table."""
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False))
    elif isinstance(result, Mapping):
        for key, value in result.items():
            typer.echo(f"{key}: {_plain(value)}")
    else:
        _table(result)


def say(message: str) -> None:
    """A message for the user, beside the output."""
    sys.stderr.write(f"{message}\n")


def _table(rows: Rows) -> None:
    if not rows:
        return
    cells = [list(rows[0]), *([_plain(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    for line in cells:
        typer.echo("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip())


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return str(value)
