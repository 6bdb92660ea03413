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
from kb.errors import BadData


class Preferring(Run, DPOTrainer):
    """Rows come as prompt_ids, chosen_ids and rejected_ids: there is nothing left to prepare."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset


class Rewarding(Run, RewardTrainer):
    """Rows come as chosen_ids and rejected_ids."""


def preferring(parts: Parts) -> Ready:
    """dpo: the last answer against the rejected one, held near to where the model began."""
    (train, *held), ledger = pairs(parts)
    args = arguments(
        DPOConfig,
        parts.settings,
        bf16=parts.bf16,
        held=list(parts.rows.held_out),
        beta=parts.settings.beta,
        max_length=None,
    )
    return _trl(Preferring, parts, args, train, held), ledger


def rewarding(parts: Parts) -> Ready:
    """rm: a score for whole conversations, the better above the worse."""
    (train, *held), ledger = pairs(parts)
    args = arguments(
        RewardConfig,
        parts.settings,
        bf16=parts.bf16,
        held=list(parts.rows.held_out),
        max_length=None,
    )
    whole = [
        [{k: one["prompt_ids"] + one[k] for k in ("chosen_ids", "rejected_ids")} for one in some]
        for some in (train, *held)
    ]
    return _trl(Rewarding, parts, args, whole[0], whole[1:]), ledger


def _trl(kind: Any, parts: Parts, args: Any, train: Any, held: Sequence[Any]) -> Trainer:
    roles = dict(zip(parts.rows.held_out, held, strict=True))
    trainer = kind(
        model=parts.model,
        args=args,
        train_dataset=Dataset.from_list(train),
        eval_dataset={role: Dataset.from_list(some) for role, some in roles.items()} or None,
        processing_class=parts.tokenizer,
    )
    assert isinstance(trainer, Trainer)
    return trainer


Pair = dict[str, list[int]]


def pairs(parts: Parts) -> tuple[list[list[Pair]], Ledger]:
    """prompt_ids, chosen_ids, rejected_ids of the rows to train on and of each held-out role.

    Raises BadData as `trainset.tokens` does: the longer of both answers counts.
    """
    every: list[list[Pair]] = []
    ledger = Ledger()
    for some in (parts.rows.train, *parts.rows.held_out.values()):
        better, mine = trainset.tokens(some, parts.renderer, parts.settings)
        if not every:
            ledger = mine
        worse, _ = trainset.tokens([row.worse for row in some], parts.renderer, parts.settings)
        if len(better) != len(some) or len(worse) != len(some):
            raise BadData(
                f"a row is longer than cutoff_len; stage {parts.settings.stage} leaves none out:"
                f" {next(iter(mine.too_long), 'its rejected answer')}"
            )
        every.append([pair(*both) for both in zip(better, worse, strict=True)])
    return every, ledger


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
