"""How strange the base model finds each row: rows far from the others do not fit it (rule 6).

The mean log-likelihood of what would be trained, in nats a token. Loads the model when first
asked; knows nothing of why a row is strange.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import whole
from finetune.render import IGNORED, Rendered, Renderer
from finetune.rows import Row
from kb.models import locate

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH_TOKENS = 4096
"""Tokens of a batch, padding included."""
LONGEST = 1024
"""Tokens of a row that are read; the beginning tells enough."""


class Perplexity:
    """Of one model folder or hub id. Calling it gives the positions of the outliers."""

    def __init__(self, model: str, limit: float, home: Path) -> None:
        self._model = model
        self._limit = limit
        self._home = home

    def __call__(self, rows: Sequence[Row]) -> list[int]:
        """Rows whose value is more than `limit` standard deviations from the mean."""
        values = self.measure(rows)
        known = [v for v in values if v is not None]
        if len(known) < 3:
            return []
        mean = sum(known) / len(known)
        spread = math.sqrt(sum((v - mean) ** 2 for v in known) / len(known))
        return [
            n
            for n, value in enumerate(values)
            if value is not None and abs(value - mean) > self._limit * spread
        ]

    def measure(self, rows: Sequence[Row]) -> list[float | None]:
        """Nats a trained token of each row; None for a row without one. Raises ModelBroken,
        BadData naming a damaged file."""
        model, tokenizer = self._load()
        renderer = Renderer(tokenizer, chat=any(row.messages for row in rows))
        rendered = [renderer.row(row) for row in rows]
        values: list[float | None] = [None] * len(rows)
        for batch in batches(rendered):
            for n, value in zip(batch, _nats([rendered[n] for n in batch], model), strict=True):
                values[n] = value
        return values

    def _load(self) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
        # Imported here: it takes seconds, and most runs never measure.
        import torch
        from transformers import AutoModelForCausalLM

        from finetune import vocabulary, weights

        folder = locate(self._model, self._home)
        whole.check(folder)
        tokenizer = vocabulary.load(folder)
        model: Any = weights.read(AutoModelForCausalLM, folder, dtype=torch.float32)
        model.train(False)
        return model.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer


def _nats(rows: Sequence[Rendered], model: "PreTrainedModel") -> list[float | None]:
    import torch

    shape = len(rows), max(map(_length, rows))
    ids, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORED)
    for at, one in enumerate(rows):
        size = _length(one)
        ids[at, :size] = torch.tensor(one.input_ids[:size])
        labels[at, :size] = torch.tensor(one.labels[:size])
        mask[at, :size] = 1
    with torch.inference_mode():
        seen = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device))
    wanted = labels[:, 1:].to(model.device)
    loss = torch.nn.functional.cross_entropy(
        seen.logits[:, :-1].transpose(1, 2), wanted, ignore_index=IGNORED, reduction="none"
    )
    counts = (wanted != IGNORED).sum(1).tolist()
    totals = loss.sum(1).tolist()
    return [t / c if c else None for t, c in zip(totals, counts, strict=True)]


def batches(rendered: Sequence[Rendered]) -> Iterator[list[int]]:
    """Positions of rows of like length, together at most BATCH_TOKENS with their padding."""
    batch: list[int] = []
    for n in sorted(range(len(rendered)), key=lambda n: _length(rendered[n])):
        if batch and (len(batch) + 1) * _length(rendered[n]) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(n)
    if batch:
        yield batch


def _length(one: Rendered) -> int:
    return min(len(one.input_ids), LONGEST)
