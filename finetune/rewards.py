"""What an answer is worth (stage grpo): is it right, and does it cite what it was shown?

Plain functions in the form that TRL calls: prompts and completions as messages, the row's other
columns by name; None where a row has nothing to judge by.
"""

import re
from collections.abc import Sequence
from typing import Any

from kb.prompt import REFUSAL

Chat = Sequence[dict[str, str]]
_MARKER = re.compile(r"\[(\d+)\]")
_SHOWN = re.compile(r"^\[(\d+)\] ", re.MULTILINE)
"""How `kb.prompt` numbers the passages it shows."""


def right(
    completions: Sequence[Chat], answer: Sequence[str | None], **_: Any
) -> list[float | None]:
    """1 where the row's `answer` occurs."""
    return [
        None if wanted is None else float(_plain(wanted) in _plain(said[-1]["content"]))
        for said, wanted in zip(completions, answer, strict=True)
    ]


def cited(
    prompts: Sequence[Chat], completions: Sequence[Chat], answer: Sequence[str | None], **_: Any
) -> list[float | None]:
    """1 where something is cited, and nothing that was not shown; None where nothing was shown, or
    the passages are to be refused."""
    out: list[float | None] = []
    for asked, said, wanted in zip(prompts, completions, answer, strict=True):
        refuses = wanted in REFUSAL.values()
        shown = set() if refuses else set(_SHOWN.findall(asked[-1]["content"]))
        named = set(_MARKER.findall(said[-1]["content"]))
        out.append(float(bool(named) and named <= shown) if shown else None)
    return out


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
