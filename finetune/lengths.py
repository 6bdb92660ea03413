"""How long the rows of a run are: its heaviest batch, and one like most others. Trains nothing."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, cycle, islice

from finetune.batches import LengthGrouped
from finetune.memory import Batch
from finetune.render import Rendered, Renderer
from finetune.rows import Row
from finetune.settings import TrainSettings

Weigh = Callable[[Batch], int]
"""Bytes that a run holds at its peak if this is its heaviest batch."""


@dataclass(frozen=True, slots=True)
class Sized:
    """A row that fits, its tokens, and how many of them are trained."""

    row: Row
    tokens: int
    trained: int


def sized(
    rows: Sequence[Row], rendered: Sequence[Rendered], renderer: Renderer, run: TrainSettings
) -> list[Sized]:
    """Rows with their tokens, in their order. Of a pair the longer counts; where answers are drawn
    (grpo), the longest answer."""
    out = []
    for row, one in zip(rows, rendered, strict=True):
        tokens, trained = len(one.input_ids), one.trained
        if run.stage in ("rm", "dpo"):
            tokens = max(tokens, len(renderer.row(row.worse).input_ids))
        if run.stage == "grpo":
            tokens += run.max_completion_length - trained
        out.append(Sized(row, tokens, trained))
    return out


def heaviest(rows: Sequence[Sized], run: TrainSettings, weigh: Weigh) -> tuple[Batch, list[Row]]:
    """The batch that needs most memory, and its rows: not always the longest, as the logits of
    trained tokens weigh too. `rows`: at least one.

    Packed rows have no batch of their own: every sequence is as long as may be, and what fills so
    many of them is given, rows repeated if need be.
    """
    if run.packing:
        share = sum(one.trained for one in rows) / sum(one.tokens for one in rows)
        size = run.per_device_train_batch_size
        trained = round(size * run.cutoff_len * share)
        filling = accumulate((one.tokens for one in cycle(rows)), initial=0)
        count = next(n for n, held in enumerate(filling) if held >= size * run.cutoff_len)
        full = [one.row for one in islice(cycle(rows), count)]
        return Batch(size, run.cutoff_len, trained), full
    worst = max(_batches(rows, run), key=lambda some: weigh(batch(some, run)))
    return batch(worst, run), [one.row for one in worst]


def _batches(rows: Sequence[Sized], run: TrainSettings) -> Iterator[list[Sized]]:
    """Of one process: those that stages pt and sft will take; elsewhere rows of any length meet,
    and the longest of all may."""
    size = run.per_device_train_batch_size
    if run.stage not in ("pt", "sft"):
        yield sorted(rows, key=lambda one: one.tokens, reverse=True)[:size]
        return
    order = LengthGrouped(
        [one.tokens for one in rows], size * run.gradient_accumulation_steps, run.seed
    )
    epochs = 1 if run.max_steps > 0 else math.ceil(run.num_train_epochs)
    most = run.max_steps * order.group if run.max_steps > 0 else None
    for order.epoch in range(epochs):
        indices = list(order)[:most]
        for n in range(0, len(indices), size):
            yield [rows[i] for i in indices[n : n + size]]


def batch(rows: Sequence[Sized], run: TrainSettings) -> Batch:
    """Of these rows, padded to the longest."""
    longest = max(one.tokens for one in rows)
    padded = run.stage in ("rm", "dpo", "grpo") or any(one.tokens < longest for one in rows)
    return Batch(len(rows), longest, sum(one.trained for one in rows), padded)


def typical(rows: Sequence[Sized], count: int) -> list[Row]:
    """`count` rows of like length, such that half of all tokens are in longer ones: with them a
    run is as fast as it is on the whole."""
    rows = sorted(rows, key=lambda one: one.tokens, reverse=True)
    half, middle = sum(one.tokens for one in rows) / 2, 0
    while half > 0:
        half -= rows[middle].tokens
        middle += 1
    first = max(0, min(middle - count // 2, len(rows) - count))
    return [one.row for one in rows[first : first + count]]
