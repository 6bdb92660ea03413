"""Stage grpo: answers drawn for each question, the better of them made likelier. TRL's trainer.

The model answers through transformers. TRL would import vLLM where it is installed (and warns of
versions it does not know); an engine is an HTTP peer here, so it is told that there is none.
"""

from importlib import import_module

from datasets import Dataset
from trl.trainer.grpo_config import GRPOConfig

from finetune import rewards, trainset
from finetune.arguments import arguments
from finetune.parts import Parts, Ready, Run
from kb.errors import BadConfiguration

setattr(import_module("trl.import_utils"), "is_vllm_available", lambda min_version=None: False)  # noqa: B010

from trl.trainer.grpo_trainer import GRPOTrainer  # noqa: E402

_CHECKED = [rewards.right, rewards.cited]


class Exploring(Run, GRPOTrainer):
    """Rows come as messages; TRL counts their tokens itself."""


def build(parts: Parts) -> Ready:
    """Judged by the reward model, or by the row's `answer` and the citations."""
    settings = parts.settings
    renderer = parts.renderer
    ledger = trainset.tokens(parts.rows.train, renderer, settings)[1]
    batch = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    if batch % settings.num_generations:
        raise BadConfiguration(
            f"num_generations: {settings.num_generations} does not divide the {batch} answers of"
            " a step (per_device_train_batch_size x gradient_accumulation_steps)"
        )
    args = arguments(
        GRPOConfig,
        settings,
        bf16=parts.bf16,
        held=[],
        beta=settings.beta,
        num_generations=settings.num_generations,
        max_completion_length=settings.max_completion_length,
    )
    asked = [
        {"prompt": [m.model_dump() for m in row.prompt], "answer": row.answer}
        for row in parts.rows.train
        if len(renderer.row(row).input_ids) <= settings.cutoff_len
    ]
    trainer = Exploring(
        model=parts.model,
        reward_funcs=str(judge) if (judge := settings.reward_model) else _CHECKED,
        args=args,
        train_dataset=Dataset.from_list(asked),
        processing_class=parts.tokenizer,
    )
    return trainer, ledger
