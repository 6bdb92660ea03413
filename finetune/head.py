"""Logits only where a token is trained: what makes small models with large vocabularies quick.

With 49,000 words a 135 M model spends more on the head than on ten of its layers, and in
supervised rows most positions are prompt, whose logits nobody reads. `Head` stands in front of the
output layer and hands on only the wanted positions. Knows no trainer and no data.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from finetune.render import IGNORED


class Head:
    """Holds the output layer of a model, wrapped (PEFT, DDP, FSDP) or not."""

    def __init__(self, layer: nn.Module) -> None:
        self._wanted: Tensor | None = None
        layer.register_forward_pre_hook(self._gather)

    @contextmanager
    def only(self, wanted: Tensor) -> Iterator[None]:
        """While open, the layer sees the positions of `wanted` (batch x length, bool) as one row.

        A model that puts virtual tokens in front (P-tuning) is longer: the last positions count.
        """
        self._wanted = wanted
        try:
            yield
        finally:
            self._wanted = None

    def _gather(self, layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._wanted is None:
            return None
        hidden, *rest = inputs
        kept = hidden[:, -self._wanted.shape[1] :][self._wanted]
        return (kept.unsqueeze(0), *rest)


def of(model: nn.Module) -> Head | None:
    """The head of a causal language model; None where none can be found."""
    find = getattr(model, "get_output_embeddings", None)
    layer = find() if find else None
    return Head(layer) if isinstance(layer, nn.Module) else None


def targets(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Which positions predict a trained token (same shape as labels), and these tokens, flat."""
    following = functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
    wanted = following != IGNORED
    return wanted, following[wanted]


def loss(logits: Tensor, wanted_tokens: Tensor) -> Tensor:
    """Summed cross entropy of the gathered positions, in float32 as transformers computes it."""
    return functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]).to(torch.float32), wanted_tokens, reduction="sum"
    )
