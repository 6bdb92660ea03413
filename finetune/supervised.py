"""Stages pt and sft: cross entropy of the trained tokens. Knows every kind of row."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from transformers import TrainingArguments

from finetune import batches, device, head, trainset
from finetune.arguments import arguments
from finetune.parts import Parts, Ready, Run
from finetune.render import IGNORED, Rendered


class Supervised(Run):
    """Computes logits only where a token is trained."""

    def __init__(self, *args: Any, order: batches.LengthGrouped | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._order = order
        assert self.model is not None
        self._head = head.of(self.model)
        # The loss is a sum over all tokens of a step, however they fall into batches.
        self.model_accepts_loss_kwargs = True
        self._held_out_tokens = 1.0

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        ours = None if self.in_order else self._order
        return ours or super()._get_train_sampler(*args, **kwargs)

    def evaluation_loop(self, dataloader: Any, *args: Any, **kwargs: Any) -> Any:
        """The mean over all trained tokens, whatever the batches: transformers averages batches, so
        ours give their sum over what as many rows have on average."""
        rows = dataloader.dataset
        trained = sum(label != IGNORED for row in rows for label in row["labels"])
        self._held_out_tokens = trained / len(rows)
        return super().evaluation_loop(dataloader, *args, **kwargs)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Equal to the model's own loss; a model whose head cannot be found computes that."""
        inputs = {**inputs, "use_cache": False}
        if self._head is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        wanted, following = head.targets(inputs.pop("labels"))
        with self._head.only(wanted):
            outputs = model(**inputs)
        loss = head.loss(outputs.logits, following)
        if not model.training:
            loss = loss / (self._held_out_tokens * len(wanted))
        elif num_items_in_batch is None:
            loss = loss / wanted.sum().clamp(min=1)
        else:
            # Gradients are averaged over processes, tokens were counted over all of them.
            shares = self.args.world_size if self.args.average_tokens_across_devices else 1
            loss = loss * shares / num_items_in_batch
        return (loss, outputs) if return_outputs else loss


def build(parts: Parts) -> Ready:
    """Padded or packed, rows of like length together."""
    settings, renderer = parts.settings, parts.renderer
    kept, ledger = trainset.tokens(parts.rows.train, renderer, settings)
    packing = settings.packing
    train = batches.packed(kept, settings.cutoff_len) if packing else batches.examples(kept)
    some = trainset.held_out(parts.rows, renderer, settings, ledger)
    held = {role: batches.examples(by_length(rows)) for role, rows in some.items()}
    args = arguments(TrainingArguments, settings, bf16=parts.bf16, held=list(held))
    group = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    order = batches.LengthGrouped([len(x["input_ids"]) for x in train], group, settings.seed)
    pad = int(parts.tokenizer.pad_token_id or 0)
    trainer = Supervised(
        order=order,
        model=parts.model,
        args=args,
        train_dataset=train,
        eval_dataset=held or None,
        data_collator=batches.Collate(pad, flat=packing and device.attention(parts.bf16) != "sdpa"),
        callbacks=[order],
    )
    trainer.pad = pad
    return trainer, ledger


def by_length(rows: Sequence[Rendered]) -> list[Rendered]:
    """So that a held-out batch has little padding."""
    return sorted(rows, key=lambda one: len(one.input_ids))
