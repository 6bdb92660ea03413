"""Questions with what is known of their answers, as data sets give them. Reads and checks.

Knows nothing of search: whether a question can be answered is `finetune.grounding`'s to find out.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.files import Object, Record, records
from kb.errors import BadData
from kb.words import sentences

GOLD = ("gold", "document", "doc_id")
"""Keys that name what answers."""
LEADS = 2
"""Sentences of a PubMedQA conclusion that count as its answer."""


@dataclass(frozen=True, slots=True)
class Question:
    """`answers` are texts that a right answer holds, any of them; `gold` names the passages that
    hold one: a file's name, or a passage's id. Either may be empty, not both. `sentence` is the
    answer's sentence where it is known."""

    text: str
    answers: tuple[str, ...]
    gold: tuple[str, ...]
    source: str
    """File and line."""
    sentence: str = ""


def passage(chunk_id: int) -> str:
    """How `gold` names a passage of the knowledge base itself; no file is called so."""
    return f"#{chunk_id}"


def given(
    file: Path, language: str = "", qrels: Mapping[str, Sequence[str]] | None = None
) -> list[Question]:
    """The questions of a file. Raises BadData with file and line."""
    return [question(record, language, qrels or {}) for record in records(file)]


def question(record: Record, language: str, qrels: Mapping[str, Sequence[str]]) -> Question:
    value = record.value
    text = _first(value, f"question_{language}" if language else "question", "question", "text")
    if not isinstance(text, str) or not text.strip():
        raise BadData(f"{record.where}: question is missing or empty")
    answers = _texts(_first(value, f"answers_{language}", "answers", "answer"))
    if isinstance(conclusion := value.get("long_answer"), str):
        answers = tuple(conclusion[a:b] for a, b in sentences(conclusion)[:LEADS])
    named = _first(value, *GOLD)
    gold = _texts(named) or tuple(qrels.get(str(value.get("id", "")), ()))
    if not answers and not gold and named is None:
        raise BadData(f"{record.where}: has neither answers nor gold")
    return Question(" ".join(text.split()), answers, gold, record.source)


def read_qrels(file: Path) -> dict[str, list[str]]:
    """Query id -> ids of its relevant passages; a first line without a number is a header."""
    out: dict[str, list[str]] = {}
    for number, line in _tsv(file):
        query, passage, score = line
        try:
            relevant = float(score) > 0
        except ValueError as error:
            if number == 1:
                continue
            raise BadData(f"{file}:{number}: {score!r} is no number") from error
        if relevant:
            out.setdefault(query, []).append(passage)
    return out


def _tsv(file: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"{file}: cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            fields = line.split("\t")
            if len(fields) != 3:
                raise BadData(f"{file}:{number}: is not `query<TAB>passage<TAB>score`")
            yield number, fields


def _first(value: Object, *keys: str) -> Any:
    return next((value[key] for key in keys if value.get(key) is not None), None)


def _texts(value: Any) -> tuple[str, ...]:
    several = value if isinstance(value, list) else [value]
    return tuple(str(one).strip() for one in several if one is not None and str(one).strip())
