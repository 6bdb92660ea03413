"""Rendered rows -> batches: padded to the longest, or packed without leaks; and in which order.

Packed rows share a sequence but not their attention: positions start again with each row, from
which transformers builds a block-diagonal mask (SDPA, eager) or cumulative lengths (flash
attention). Only without a cache: the model must be called with use_cache=False.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_pt_utils import get_length_grouped_indices
from trl.data_utils import pack_dataset

from finetune.render import IGNORED, Rendered

Example = dict[str, list[int]]


def examples(rows: Sequence[Rendered]) -> list[Example]:
    """The first token of a row is never a target: in a pack the row before would predict it."""
    return [
        {"input_ids": list(row.input_ids), "labels": [IGNORED, *row.labels[1:]]} for row in rows
    ]


def packed(rows: Sequence[Rendered], length: int) -> list[Example]:
    """Rows joined into sequences of at most `length` tokens, best fit first; none is cut, as none
    is longer. `seq_lengths` tells where they end."""
    columns = {name: [one[name] for one in examples(rows)] for name in ("input_ids", "labels")}
    return list(pack_dataset(Dataset.from_dict(columns), length, "bfd"))


@dataclass(frozen=True, slots=True)
class Collate:
    """Examples -> input_ids, labels and attention_mask or position_ids, batch x length, padded on
    the right. `flat`: packs become one sequence, as flash attention wants them."""

    pad: int
    flat: bool = False

    def __call__(self, batch: Sequence[Example]) -> dict[str, Tensor]:
        columns = {
            "input_ids": (self.pad, [one["input_ids"] for one in batch]),
            "labels": (IGNORED, [one["labels"] for one in batch]),
        }
        if "seq_lengths" in batch[0]:
            # Padding is of position 0: each a row of its own, which nobody attends to.
            columns["position_ids"] = (0, [_positions(one["seq_lengths"]) for one in batch])
        else:
            columns["attention_mask"] = (0, [[1] * len(one["input_ids"]) for one in batch])
        if self.flat and "position_ids" in columns:
            return {
                name: torch.tensor([[x for one in lists for x in one]])
                for name, (_, lists) in columns.items()
            }
        longest = max(len(one["input_ids"]) for one in batch)
        return {
            name: torch.tensor([one + [fill] * (longest - len(one)) for one in lists])
            for name, (fill, lists) in columns.items()
        }


def _positions(lengths: Sequence[int]) -> list[int]:
    return [position for length in lengths for position in range(length)]


class LengthGrouped(Sampler[int], TrainerCallback):
    """Rows of like length together, the longest first, in another order each epoch.

    The order depends on seed and epoch alone (transformers' own draws from the global state,
    so that a resumed epoch would see other rows). A callback too: that is how it learns the epoch,
    whatever accelerate has wrapped around it.
    """

    def __init__(self, lengths: Sequence[int], group: int, seed: int) -> None:
        self.lengths = list(lengths)
        self.group = group
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + 1000 * self.epoch)
        order = get_length_grouped_indices(  # type: ignore[no-untyped-call]
            self.lengths, self.group, generator=generator
        )
        # They come sorted by length; steps should not: all but the first and a last, short one.
        steps = [order[i : i + self.group] for i in range(0, len(order), self.group)]
        inner = steps[1:-1]
        shuffled = [inner[i] for i in torch.randperm(len(inner), generator=generator).tolist()]
        for step in [*steps[:1], *shuffled, *steps[1:][-1:]]:
            yield from step

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.epoch = int(state.epoch or 0)
