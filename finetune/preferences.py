"""Stages rm and dpo: the last answer against a worse one. TRL's trainers, given token ids, so that
they cut, drop and mask nothing."""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from datasets import Dataset
from transformers import Trainer
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer

from finetune import trainset
from finetune.arguments import arguments
from finetune.parts import Parts, Ready, Run
from finetune.render import IGNORED, Ledger, Rendered
from finetune.rows import Role

Pair = dict[str, list[int]]
Held = dict[Role, list[Pair]]


class Preferring(Run, DPOTrainer):
    """Rows come as prompt_ids, chosen_ids and rejected_ids: there is nothing left to prepare."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset


class Rewarding(Run, RewardTrainer):
    """Rows come as chosen_ids and rejected_ids."""


def preferring(parts: Parts) -> Ready:
    """dpo: the last answer against the rejected one, held near to where the model began."""
    train, held, ledger = pairs(parts)
    more = {"beta": parts.settings.beta}
    return _trl(Preferring, DPOConfig, parts, train, held, **more), ledger


def rewarding(parts: Parts) -> Ready:
    """rm: a score for whole conversations, the better above the worse."""
    train, held, ledger = pairs(parts)
    whole = {role: _whole(some) for role, some in held.items()}
    return _trl(Rewarding, RewardConfig, parts, _whole(train), whole), ledger


def _trl(
    kind: Any, config: Any, parts: Parts, train: list[Pair], held: Held, **more: Any
) -> Trainer:
    args = arguments(
        config, parts.settings, bf16=parts.bf16, held=list(held), max_length=None, **more
    )
    trainer = kind(
        model=parts.model,
        args=args,
        train_dataset=Dataset.from_list(train),
        eval_dataset={role: Dataset.from_list(some) for role, some in held.items()} or None,
        processing_class=parts.tokenizer,
    )
    assert isinstance(trainer, Trainer)
    return trainer


def pairs(parts: Parts) -> tuple[list[Pair], Held, Ledger]:
    """prompt_ids, chosen_ids, rejected_ids of the rows to train on and of each held-out role: those
    of which both answers fit. Raises BadData as `trainset.tokens` does."""
    settings, renderer = parts.settings, parts.renderer
    kept, ledger = trainset.tokens(parts.rows.train, renderer, settings)
    held = trainset.held_out(parts.rows, renderer, settings, ledger)
    return _pairs(kept), {role: _pairs(some) for role, some in held.items()}, ledger


def _pairs(rows: Sequence[Rendered]) -> list[Pair]:
    return [pair(one, one.worse) for one in rows if one.worse]


def _whole(some: Sequence[Pair]) -> list[Pair]:
    return [{k: one["prompt_ids"] + one[k] for k in ("chosen_ids", "rejected_ids")} for one in some]


def pair(better: Rendered, worse: Rendered) -> Pair:
    """Cut where the last answer begins; what follows its end token belongs to nobody."""
    begin, end = _last_answer(better)
    _, worse_end = _last_answer(worse)
    return {
        "prompt_ids": list(better.input_ids[:begin]),
        "chosen_ids": list(better.input_ids[begin:end]),
        "rejected_ids": list(worse.input_ids[begin:worse_end]),
    }


def _last_answer(one: Rendered) -> tuple[int, int]:
    backwards = one.labels[::-1]
    after = sum(1 for _ in takewhile(lambda label: label == IGNORED, backwards))
    length = sum(1 for _ in takewhile(lambda label: label != IGNORED, backwards[after:]))
    end = len(one.labels) - after
    return end - length, end
