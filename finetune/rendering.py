"""All rows of a run as the model will see them, and what is wrong with those that it cannot.

Trains nothing; knows nothing of what rows say.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from finetune.problems import Problem
from finetune.render import Ledger, Rendered, Renderer
from finetune.rows import Role, Row
from finetune.settings import TrainSettings
from finetune.shape import Shape
from finetune.trainset import PAIRED
from kb.errors import BadData


@dataclass(slots=True)
class Rendering:
    """Rows that fit with their tokens, and what is wrong with the others."""

    rows: list[Row] = field(default_factory=list)
    rendered: list[Rendered] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)
    broken: list[str] = field(default_factory=list)


def render(rows: Sequence[Row], renderer: Renderer, settings: TrainSettings) -> Rendering:
    made = Rendering()
    for row in rows:
        try:
            one = renderer.row(row, pairs=settings.stage in PAIRED)
        except BadData as error:
            made.broken.append(str(error))
            continue
        if made.ledger.fits(row, one, settings.cutoff_len):
            made.rows.append(row)
            made.rendered.append(one)
    return made


def trained(made: Rendering, settings: TrainSettings, shape: Shape, rows: int) -> Iterator[Problem]:
    """What is wrong with the rows of which `made` are those that fit; `rows`: how many."""
    yield from _broken(made, "rows")
    if long := made.ledger.too_long:
        share = len(long) / rows
        over = share > settings.max_too_long or not made.rows
        text = f"{len(long)} rows ({share:.1%}) are longer than cutoff_len {settings.cutoff_len}"
        text += f" and left out: {long[0]}; max_too_long allows {settings.max_too_long:.1%}"
        yield Problem("serious" if over else "note", "length", text)
    if shape.most_tokens and settings.cutoff_len > shape.most_tokens:
        text = f"cutoff_len {settings.cutoff_len}: the model knows {shape.most_tokens} positions"
        yield Problem("serious", "length", text)


def held_out(made: Rendering, settings: TrainSettings, role: Role, rows: int) -> Iterator[Problem]:
    """The same for the held-out rows of a role: those that are too long end no run."""
    what = f"held-out rows ({role})"
    yield from _broken(made, what)
    if long := made.ledger.too_long:
        text = f"{len(long)} of {rows} {what} are longer than cutoff_len {settings.cutoff_len} and"
        text += f" left out: {long[0]}{'' if made.rows else '; none of them is left'}"
        yield Problem("note", "length", text)


def _broken(made: Rendering, what: str) -> Iterator[Problem]:
    if made.broken:
        text = f"{len(made.broken)} {what} cannot be rendered: {made.broken[0]}"
        yield Problem("serious", "template", text)
    if empty := sum(not one.trained for one in made.rendered):
        yield Problem("serious", "labels", f"{empty} {what} train no token")
