"""Gives the free pieces of the heap back to the system where a run pauses anyway.

glibc keeps what was freed in pieces, between what is in use. Batches of another length do not fit
into these, so that the heaviest of the next pass would come on top of them: it finds them given
back (docs/decisions/015-heap.md). Not at every step: the system clears every page that it lends.
"""

import ctypes
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class Trimming(TrainerCallback):
    """Before the first batch of a pass over the rows, which is its heaviest, and after every
    held-out loss."""

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        trim()

    on_evaluate = on_epoch_begin


def trim() -> None:
    """Nothing where the C library is another than glibc."""
    glibc = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if glibc is not None:
        glibc(0)
