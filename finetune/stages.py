"""Stage -> trainer: pt and sft here, rm, dpo and grpo TRL's, all with whole checkpoints.

Rows are rendered by us, never by a trainer, so that nothing is cut, dropped or masked unseen.
Knows no folders and no commands.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from finetune import batches, device, head, trainset
from finetune.checkpoints import WholeCheckpoints
from finetune.models import Model
from finetune.progress import Patience, Progress
from finetune.render import Ledger, Renderer
from finetune.settings import TrainSettings
from finetune.trainset import TrainSet
from kb.errors import BadConfiguration


@dataclass(frozen=True, slots=True)
class Prepared:
    """A trainer that is ready to run, and what became of the rows."""

    trainer: Trainer
    progress: Progress
    ledger: Ledger


class Run(WholeCheckpoints):
    """What every stage's trainer has: whole checkpoints, tokens counted, no model cards."""

    pad = 0

    def training_step(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        if isinstance(inputs, Mapping) and "input_ids" in inputs:
            seen = self.accelerator.reduce(_tokens(inputs, self.pad).to(self.args.device))
            self.state.num_input_tokens_seen += int(seen)
        return super().training_step(model, inputs, *args, **kwargs)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """TRL writes one beside every checkpoint; run.json says more."""


def _tokens(inputs: Mapping[str, Tensor], pad: int) -> Tensor:
    """Tokens of a batch without its padding."""
    if "attention_mask" in inputs:
        return inputs["attention_mask"].sum()
    return ((inputs["input_ids"] != pad) | (inputs["position_ids"] != 0)).sum()


class Supervised(Run):
    """pt and sft: cross entropy of the trained tokens, with logits for no others."""

    def __init__(self, *args: Any, order: batches.LengthGrouped | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._order = order
        assert self.model is not None
        self._head = head.of(self.model)
        # The loss is a sum over all tokens of a step, however they fall into batches.
        self.model_accepts_loss_kwargs = True

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        return self._order or super()._get_train_sampler(*args, **kwargs)

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
        if num_items_in_batch is None:
            loss = loss / wanted.sum().clamp(min=1)
        else:
            # Gradients are averaged over processes, tokens were counted over all of them.
            shares = self.args.world_size if self.args.average_tokens_across_devices else 1
            loss = loss * shares / num_items_in_batch
        return (loss, outputs) if return_outputs else loss


def prepare(
    settings: TrainSettings,
    rows: TrainSet,
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    *,
    bf16: bool,
    progress: Progress,
) -> Prepared:
    """The trainer of the stage. Raises BadData for rows that do not fit, BadConfiguration for a
    value that transformers refuses."""
    build = {"pt": supervised, "sft": supervised}[settings.stage]
    trainer, ledger = build(settings, rows, model, tokenizer, bf16)
    trainer.add_callback(progress)
    if settings.patience and trainer.eval_dataset:
        trainer.add_callback(Patience(settings.patience))
    trainer.remove_callback(PrinterCallback)
    return Prepared(trainer, progress, ledger)


def supervised(
    settings: TrainSettings,
    rows: TrainSet,
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    bf16: bool,
) -> tuple[Trainer, Ledger]:
    renderer = Renderer(tokenizer, chat=any(row.messages for row in rows.train))
    kept, ledger = trainset.tokens(rows.train, renderer, settings)
    join = settings.packing
    train = batches.packed(kept, settings.cutoff_len) if join else batches.examples(kept)
    held = {
        role: batches.examples(
            sorted(trainset.tokens(some, renderer, settings)[0], key=lambda one: len(one.input_ids))
        )
        for role, some in rows.held_out.items()
    }
    args = arguments(TrainingArguments, settings, bf16=bf16, held=list(held))
    group = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    order = batches.LengthGrouped([len(x["input_ids"]) for x in train], group, settings.seed)
    pad = int(tokenizer.pad_token_id or 0)
    flat = join and device.attention() != "sdpa"
    trainer = Supervised(
        order=order,
        model=model,
        args=args,
        train_dataset=train,
        eval_dataset=held or None,
        data_collator=batches.Collate(pad, flat),
        callbacks=[order],
    )
    trainer.pad = pad
    return trainer, ledger


def arguments(
    kind: type[TrainingArguments],
    settings: TrainSettings,
    *,
    bf16: bool,
    held: Sequence[str],
    **more: Any,
) -> Any:
    """Our keys as transformers' (or TRL's) arguments. The held-out loss of the field decides which
    checkpoint is best; without rows of the field, that of the first role there is."""
    best = "domain" if "domain" in held else next(iter(held), None)
    if held and settings.save_steps % settings.eval_steps:
        raise BadConfiguration(
            f"save_steps: {settings.save_steps} is no multiple of eval_steps"
            f" ({settings.eval_steps}), so the best checkpoint could not be kept"
        )
    chosen: dict[str, Any] = {
        "output_dir": str(settings.output_dir),
        "per_device_train_batch_size": settings.per_device_train_batch_size,
        "per_device_eval_batch_size": settings.per_device_train_batch_size,
        "gradient_accumulation_steps": settings.gradient_accumulation_steps,
        "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "num_train_epochs": settings.num_train_epochs,
        "max_steps": settings.max_steps,
        "lr_scheduler_type": settings.lr_scheduler_type,
        "warmup_steps": settings.warmup_ratio,
        "max_grad_norm": settings.max_grad_norm,
        "optim": settings.optim,
        "bf16": bf16,
        "use_cpu": not torch.cuda.is_available(),
        "gradient_checkpointing": settings.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "neftune_noise_alpha": settings.neftune_noise_alpha,
        "logging_steps": settings.logging_steps,
        "logging_first_step": True,
        "save_steps": settings.save_steps,
        "save_total_limit": settings.save_total_limit,
        "eval_strategy": "steps" if held else "no",
        "eval_steps": settings.eval_steps,
        "metric_for_best_model": f"eval_{best}_loss" if best else None,
        "greater_is_better": False,
        "restore_callback_states_from_checkpoint": True,
        "report_to": settings.report_to,
        "seed": settings.seed,
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "ddp_find_unused_parameters": False,
        "use_liger_kernel": device.has_liger(),
        # Ours leaves out untrained positions, which a fused head and loss cannot.
        "liger_kernel_config": {"fused_linear_cross_entropy": False},
    }
    try:
        made = kind(**chosen, **more)
    except ValueError as error:
        raise BadConfiguration(" ".join(str(error).split())) from error
    if made.n_gpu > 1:
        raise BadConfiguration(
            f"{made.n_gpu} GPUs are visible: start with `accelerate launch -m finetune.cli train`,"
            " or name one in CUDA_VISIBLE_DEVICES"
        )
    return made
