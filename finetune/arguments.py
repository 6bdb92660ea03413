"""Our keys as the arguments of transformers' and TRL's trainers. Knows no rows and no models."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import TrainingArguments

from finetune import device
from finetune.settings import TrainSettings
from kb.errors import BadConfiguration


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
        "logging_nan_inf_filter": False,  # it hides what `parts.Run` ends the run for
        "save_steps": settings.save_steps,
        "save_total_limit": settings.save_total_limit,
        "eval_strategy": "steps" if held else "no",
        "eval_steps": settings.eval_steps,
        "metric_for_best_model": f"eval_{best}_loss" if best else None,
        "greater_is_better": False,
        "report_to": settings.report_to,
        "seed": settings.seed,
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "ddp_find_unused_parameters": False,
        "use_liger_kernel": settings.stage in ("pt", "sft") and device.has_liger(),
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
