"""The rows of a run: found, read, fit for the stage, hashed. Knows no tensors, no trainer."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.render import Ledger, Rendered, Renderer, render
from finetune.rows import HELD_OUT, MANIFEST, TRAIN, Role, Row, read
from finetune.settings import TrainSettings
from kb.errors import BadData

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
    account: Mapping[str, Any] | None = None
    """data.json, if these are the very rows that it tells of."""

    @property
    def chats(self) -> bool:
        """Whether any row is a conversation, for which a model needs a template."""
        every = (self.train, *self.held_out.values())
        return any(row.messages for some in every for row in some)


def load(settings: TrainSettings) -> TrainSet:
    """`dataset` (a file, or a folder with train.jsonl) and the val.jsonl beside it, which may be
    absent. Raises BadData: no such file, no rows, a row that the stage cannot train on, other rows
    than the data.json beside them tells of."""
    file = settings.dataset or settings.output_dir / "data"
    file = file / TRAIN if file.is_dir() or not file.suffix else file
    if not settings.dataset and not file.is_file():
        raise BadData(f"{file}: is not there; run `finetune data` first, or name a `dataset`")
    beside = file.with_name(HELD_OUT)
    train = _read(file, settings)
    if not train:
        raise BadData(f"{file}: holds no rows")
    held: dict[Role, list[Row]] = {}
    for row in _read(beside, settings) if beside.is_file() else ():
        held.setdefault(row.role, []).append(row)
    written = {one.name: one.read_bytes() for one in (file, beside) if one.is_file()}
    digest = hashlib.sha256(b"".join(written.values())).hexdigest()
    by_role = {r: tuple(held[r]) for r in sorted(held)}
    return TrainSet(train, by_role, file, digest, _account(file, written))


def _account(file: Path, written: Mapping[str, bytes]) -> Mapping[str, Any] | None:
    """data.json beside the rows, if it tells of them. Raises BadData if they are others: a set that
    was changed, or copied in part, may train on what it holds out."""
    try:
        account = json.loads(file.with_name(MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # none, or somebody's own file of that name
        return None
    files = account.get("files") if isinstance(account, dict) else None
    if not isinstance(files, dict) or file.name not in files:
        return None
    if files != {name: hashlib.sha256(raw).hexdigest() for name, raw in written.items()}:
        raise BadData(
            f"{file}: it and {HELD_OUT} are not the rows that {MANIFEST} beside them tells of; run"
            f" `finetune data` again, or delete {MANIFEST} if they were changed on purpose"
        )
    assert isinstance(account, dict)
    return account


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
    judged = row.answer is not None or row.origin.chunks  # by its answer, or by what is cited
    if stage == "grpo" and not judged and not settings.reward_model:
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
    counts them and names the others: of few one is soon more than a share, and nothing is learned
    from them."""
    held = {}
    for role, some in rows.held_out.items():
        kept, mine = render(some, renderer, settings.cutoff_len, pairs=settings.stage in PAIRED)
        ledger.too_long += [f"held out ({role}): {one}" for one in mine.too_long]
        if kept:
            held[role] = kept
            ledger.held_out[role] = len(kept)
    return held
