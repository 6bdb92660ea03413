"""Stage -> trainer, ready to run. Imports only the stage that is asked for: TRL takes seconds."""

from transformers.trainer_callback import PrinterCallback

from finetune.parts import Parts, Ready
from finetune.patience import Patience
from finetune.progress import Progress


def prepare(parts: Parts, progress: Progress) -> Ready:
    """The trainer of the stage, and what became of the rows. Raises BadData for rows that do not
    fit, BadConfiguration for a value that a library refuses."""
    trainer, ledger = _build(parts)
    for weights in parts.model.parameters():
        # TRL makes those of a 4-bit model bfloat16, which rounds steps off.
        if weights.requires_grad:
            weights.data = weights.data.float()
    trainer.add_callback(progress)
    trainer.add_callback(Patience(parts.settings.patience))
    trainer.remove_callback(PrinterCallback)
    return trainer, ledger


def _build(parts: Parts) -> Ready:
    match parts.settings.stage:
        case "pt" | "sft":
            from finetune import supervised

            return supervised.build(parts)
        case "rm":
            from finetune import preferences

            return preferences.rewarding(parts)
        case "dpo":
            from finetune import preferences

            return preferences.preferring(parts)
        case "grpo":
            from finetune import exploring

            return exploring.build(parts)
