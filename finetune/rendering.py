"""All rows of a run as the model will see them, and what is wrong with those that it cannot.

Trains nothing; knows nothing of what rows say.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from finetune.problems import Problem
from finetune.render import Ledger, Rendered, Renderer
from finetune.rows import Row
from finetune.settings import TrainSettings
from finetune.shape import Shape
from kb.errors import BadData


@dataclass(slots=True)
class Rendering:
    """Rows that fit with their tokens, and what is wrong with the others."""

    rows: list[Row] = field(default_factory=list)
    rendered: list[Rendered] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)
    broken: list[str] = field(default_factory=list)


def render(rows: Sequence[Row], renderer: Renderer, most: int) -> Rendering:
    """`most`: tokens of a row that fits."""
    made = Rendering()
    for row in rows:
        try:
            one = renderer.row(row)
        except BadData as error:
            made.broken.append(str(error))
            continue
        if len(one.input_ids) > most:
            made.ledger.too_long.append(f"{row.origin.source} ({len(one.input_ids)} tokens)")
            continue
        made.ledger.add(one)
        made.rows.append(row)
        made.rendered.append(one)
    return made


def lengths(made: Rendering, settings: TrainSettings, shape: Shape, rows: int) -> Iterator[Problem]:
    """What is wrong with the rows of which `made` are those that fit; `rows`: how many."""
    if made.broken:
        text = f"{len(made.broken)} rows cannot be rendered: {made.broken[0]}"
        yield Problem("serious", "template", text)
    if long := made.ledger.too_long:
        share = len(long) / rows
        over = share > settings.max_too_long
        text = f"{len(long)} rows ({share:.1%}) are longer than cutoff_len {settings.cutoff_len}"
        text += f" and left out: {long[0]}; max_too_long allows {settings.max_too_long:.1%}"
        yield Problem("serious" if over else "note", "length", text)
    if empty := sum(not one.trained for one in made.rendered):
        yield Problem("serious", "labels", f"{empty} rows train no token")
    if shape.most_tokens and settings.cutoff_len > shape.most_tokens:
        text = f"cutoff_len {settings.cutoff_len}: the model knows {shape.most_tokens} positions"
        yield Problem("serious", "length", text)
