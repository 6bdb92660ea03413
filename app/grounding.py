"""Items with passages and their answers -> figures of how truly a system stayed with them. Pure.

    {"id", "lang", "kind": "clean" | "noisy" | "unanswerable", "question", "answers": [...],
     "passages": [{"id", "text"}, ...], "gold": [ids of the passages that answer]}

`kb.judging` judges: an answer is right if one of the item's answer strings occurs in it, so the
figures are a floor for paraphrases and lenient with long answers. Knows nothing of the system.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kb.errors import BadData
from kb.judging import holds

Kind = Literal["clean", "noisy", "unanswerable"]
KINDS: Sequence[Kind] = get_args(Kind)


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Passage(_Row):
    id: str
    text: str


class Item(_Row):
    """One question with all that may be used to answer it."""

    id: str
    lang: str
    kind: Kind
    question: str = Field(min_length=1)
    answers: tuple[str, ...] = ()
    passages: tuple[Passage, ...] = Field(min_length=1)
    gold: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """What the system said; `cited` are ids of passages, each once."""

    text: str
    refused: bool
    cited: tuple[str, ...]


def read(file: Path, language: str | None = None) -> list[Item]:
    """The items of a JSONL file, of one language if it is named. Raises BadData with file and
    line."""
    items = []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"{file} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            item = Item.model_validate(json.loads(line))
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise BadData(f"{file}:{number}: {key}: {first['msg']}") from error
        except ValueError as error:
            raise BadData(f"{file}:{number} is not JSON: {error}") from error
        if language in (None, item.lang):
            items.append(item)
    if not items:
        raise BadData(f"{file} holds no items" + (f" of language {language}" if language else ""))
    return items


def report(items: Sequence[Item], replies: Sequence[Reply]) -> dict[str, Any]:
    """Kind -> language -> figures. Shares are of the `n` items, but for the three that name their
    own whole: `citation_precision` of all cited passages, the share that holds an answer;
    `refusal_precision` of what the language's items had refused, the share that is unanswerable;
    `refusal_recall` of the language's unanswerable items, the share that was refused. A share of
    nothing is null.
    """
    judged = list(zip(items, replies, strict=True))
    out: dict[str, Any] = {}
    for kind in KINDS:
        of_kind = {}
        for language in sorted({item.lang for item in items}):
            mine = [(i, r) for i, r in judged if i.lang == language]
            cell = [(i, r) for i, r in mine if i.kind == kind]
            if cell:
                of_kind[language] = _figures(cell) | _refusals(mine)
        if of_kind:
            out[kind] = of_kind
    return out


def _figures(cell: Sequence[tuple[Item, Reply]]) -> dict[str, Any]:
    cited = [_right(item, passage) for item, reply in cell for passage in reply.cited]
    return {
        "n": len(cell),
        "answered": _share(not reply.refused for _, reply in cell),
        "correct": _share(not r.refused and holds(r.text, i.answers) for i, r in cell),
        "refused": _share(reply.refused for _, reply in cell),
        "cited": _share(bool(reply.cited) for _, reply in cell),
        "right_passage_cited": _share(any(_right(i, p) for p in r.cited) for i, r in cell),
        "citation_precision": _share(cited),
    }


def _refusals(mine: Sequence[tuple[Item, Reply]]) -> dict[str, Any]:
    refused = [item.kind == "unanswerable" for item, reply in mine if reply.refused]
    unanswerable = [reply.refused for item, reply in mine if item.kind == "unanswerable"]
    return {"refusal_precision": _share(refused), "refusal_recall": _share(unanswerable)}


def _right(item: Item, passage: str) -> bool:
    return passage in item.gold or any(
        p.id == passage and item.kind != "unanswerable" and holds(p.text, item.answers)
        for p in item.passages
    )


def _share(found: Any) -> float | None:
    all_ = list(found)
    return round(sum(all_) / len(all_), 4) if all_ else None


def table(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The report as rows for people."""
    return [
        {"kind": kind, "language": language, **figures}
        for kind in KINDS
        for language, figures in report.get(kind, {}).items()
    ]
