"""Which rows stay, and an account of those that do not: each filter has a name, a count, samples.

Cheap filters first, so that the costly ones see fewer rows. Knows nothing of files or mixing.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from finetune import duplicates, noise
from finetune.language import language
from finetune.overlap import Judged
from finetune.rows import Row

SAMPLES = 3
_SHOWN = 160
Outliers = Callable[[Sequence[Row]], Iterable[int]]
"""Rows -> positions of those that the base model finds strange."""


@dataclass(slots=True)
class Dropped:
    """What was dropped, by reason: how many, and a few to look at."""

    counts: dict[str, int] = field(default_factory=dict)
    samples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, sample: str) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1
        shown = self.samples.setdefault(reason, [])
        if len(shown) < SAMPLES:
            shown.append(sample)

    def row(self, reason: str, row: Row) -> None:
        said = row.reply or row.text
        text = " ".join(said.split())
        self.add(reason, f"{row.origin.source}: {text[:_SHOWN]}{'…' if len(text) > _SHOWN else ''}")

    def as_json(self) -> dict[str, Any]:
        return {
            reason: {"count": count, "samples": self.samples.get(reason, [])}
            for reason, count in self.counts.items()
        }


def clean(
    rows: Sequence[Row],
    dropped: Dropped,
    *,
    languages: Sequence[str] = (),
    near_duplicate: float = 1.0,
    outliers: Outliers | None = None,
) -> list[Row]:
    """The rows that stay, in order, with their language noted."""
    kept = []
    for row in rows:
        spoken = row.language or language(row.text or f"{row.prompt[-1].content}\n{row.reply}")
        row = row.model_copy(update={"language": spoken})
        if reason := _reason(row, languages):
            dropped.row(reason, row)
        else:
            kept.append(row)
    kept = distinct(kept, dropped, near_duplicate)
    if outliers:
        kept = _without(kept, outliers(kept), "perplexity outliers", dropped)
    return kept


def distinct(rows: Sequence[Row], dropped: Dropped, near_duplicate: float) -> list[Row]:
    """The rows that do not say what an earlier one says."""
    kept = _without(rows, duplicates.exact(rows), "exact duplicates", dropped)
    return _without(kept, duplicates.near(kept, near_duplicate), "near duplicates", dropped)


def unseen(rows: Sequence[Row], judged: Judged, dropped: Dropped) -> list[Row]:
    """The rows that hold nothing of what the model will be judged on."""
    found = [n for n, row in enumerate(rows) if judged.overlaps(row)] if judged else []
    return _without(rows, found, "overlap with the evaluation", dropped)


def _reason(row: Row, languages: Sequence[str]) -> str:
    for name, broken in noise.REASONS.items():
        if broken(row):
            return name
    if languages and row.language and row.language not in languages:
        return "wrong language"
    return ""


def _without(
    rows: Sequence[Row], positions: Iterable[int], reason: str, dropped: Dropped
) -> list[Row]:
    gone = set(positions)
    for n in sorted(gone):
        dropped.row(reason, rows[n])
    return [row for n, row in enumerate(rows) if n not in gone]
