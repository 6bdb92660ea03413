"""The rows of a run: found, read, fit for the stage, hashed. Knows no tensors, no trainer."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.render import Ledger, Rendered, Renderer, render
from finetune.rows import Role, Row, read
from finetune.settings import TrainSettings
from kb.errors import BadData

TRAIN = "train.jsonl"
HELD_OUT = "val.jsonl"
PAIRED = ("rm", "dpo")
"""Stages that compare the last answer with a rejected one."""


@dataclass(frozen=True, slots=True)
class TrainSet:
    """What is trained on, and what is held out, by role."""

    train: tuple[Row, ...]
    held_out: dict[Role, tuple[Row, ...]]
    file: Path
    sha256: str
    """Of both files together."""

    @property
    def chats(self) -> bool:
        """Whether any row is a conversation, for which a model needs a template."""
        every = (self.train, *self.held_out.values())
        return any(row.messages for some in every for row in some)


def load(settings: TrainSettings) -> TrainSet:
    """`dataset` (a file, or a folder with train.jsonl) and the val.jsonl beside it, which may be
    absent. Raises BadData: no such file, no rows, a row that the stage cannot train on."""
    file = settings.dataset or settings.output_dir / "data"
    file = file / TRAIN if file.is_dir() or not file.suffix else file
    beside = file.with_name(HELD_OUT)
    train = _read(file, settings)
    if not train:
        raise BadData(f"{file}: holds no rows")
    held: dict[Role, list[Row]] = {}
    for row in _read(beside, settings) if beside.is_file() else ():
        held.setdefault(row.role, []).append(row)
    digest = hashlib.sha256(file.read_bytes())
    digest.update(beside.read_bytes() if beside.is_file() else b"")
    return TrainSet(train, {r: tuple(held[r]) for r in sorted(held)}, file, digest.hexdigest())


def _read(file: Path, settings: TrainSettings) -> tuple[Row, ...]:
    rows = []
    for row in read(file):
        if missing := lacks(row, settings):
            raise BadData(f"{file}: the row of {row.origin.source} {missing}")
        rows.append(row)
    return tuple(rows)


def lacks(row: Row, settings: TrainSettings) -> str:
    """Why a stage cannot train on a row; empty if it can.

    pt and sft take both kinds of rows: replayed text beside answers, and answers beside text.
    """
    stage = settings.stage
    if stage in PAIRED and row.rejected is None:
        return f"has no `rejected` answer, which stage {stage} needs"
    if stage in (*PAIRED, "grpo") and not row.messages:
        return f"has no `messages`, which stage {stage} needs"
    if stage == "grpo" and row.answer is None and not settings.reward_model:
        return "has no `answer` to judge by, and no reward_model is set"
    return ""


def tokens(
    rows: Sequence[Row], renderer: Renderer, settings: TrainSettings
) -> tuple[list[Rendered], Ledger]:
    """Rendered rows of at most `cutoff_len` tokens. Raises BadData if more than `max_too_long` of
    them are longer: what is left out must be a choice."""
    kept, ledger = render(rows, renderer, settings.cutoff_len, pairs=settings.stage in PAIRED)
    share = len(ledger.too_long) / len(rows)
    if share > settings.max_too_long or not kept:
        raise BadData(
            f"{len(ledger.too_long)} of {len(rows)} rows are longer than cutoff_len"
            f" ({ledger.too_long[0]}); max_too_long allows {settings.max_too_long:.0%}"
        )
    return kept, ledger


def held_out(
    rows: TrainSet, renderer: Renderer, settings: TrainSettings, ledger: Ledger
) -> dict[Role, list[Rendered]]:
    """Rendered held-out rows of at most `cutoff_len` tokens, of the roles that have any. `ledger`
    names the others: of few rows one is soon more than a share, and nothing is learned from them.
    """
    held = {}
    for role, some in rows.held_out.items():
        kept, mine = render(some, renderer, settings.cutoff_len, pairs=settings.stage in PAIRED)
        ledger.too_long += [f"held out ({role}): {one}" for one in mine.too_long]
        if kept:
            held[role] = kept
    return held
