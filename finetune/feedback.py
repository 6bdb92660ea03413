"""Judged answers -> rows and preferences. Knows nothing of files.

An answer rated up becomes a row; one that was corrected a row with the correction, and a preference
for it; one rated down a preference where a better answer to the same prompt is known, else nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from finetune.rows import Message

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rated:
    """One answer and what somebody thought of it."""

    prompt: tuple[Message, ...]
    completion: str
    rating: Literal["up", "down"]
    correction: str = ""


def is_label(value: dict[str, Any]) -> bool:
    """Whether a record is a conversation whose answer is labelled good or bad (KTO)."""
    return isinstance(value.get("label"), bool) and (
        "messages" in value or "conversations" in value
    )


def pairs(rated: Sequence[tuple[T, Rated]]) -> Iterator[tuple[T, dict[str, Any]]]:
    """Rows' fields, each with the record it comes from."""
    good: dict[tuple[Message, ...], list[str]] = {}
    for _, one in rated:
        if better := one.correction or (one.completion if one.rating == "up" else ""):
            good.setdefault(one.prompt, []).append(better)
    used: dict[tuple[Message, ...], int] = {}
    for record, one in rated:
        better = one.correction
        if not better and one.rating == "down" and one.prompt in good:
            nth = used.get(one.prompt, 0)
            used[one.prompt] = nth + 1
            better = good[one.prompt][nth % len(good[one.prompt])]
        if better and better != one.completion:
            yield record, _fields(one.prompt, better, one.completion)
        elif one.rating == "up":
            yield record, _fields(one.prompt, one.completion, None)


def _fields(prompt: Sequence[Message], reply: str, rejected: str | None) -> dict[str, Any]:
    said = [*prompt, Message(role="assistant", content=reply)]
    return {"messages": said, "rejected": rejected}
