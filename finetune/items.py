"""What a model is judged on: items of grounding, multiple choice, maths and plain text, from files.

Checked on reading: a bad line is named with its file and number. Knows no engine and no judge.
"""

import json
import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from finetune.language import of_question
from finetune.rows import first_reason, lines
from kb.errors import BadData

TEXT_CHARACTERS = 2_000
"""Of plain text read in one go: enough to tell, short enough for every model."""
UNANSWERABLE = "unanswerable"
MISSED = "missed"
"""Answered somewhere, but not in these passages: the retriever missed it."""


class _Item(BaseModel):
    # Data sets carry more than is needed here.
    model_config = ConfigDict(frozen=True, extra="ignore")


class Passage(_Item):
    id: str
    text: Annotated[str, Field(min_length=1)]
    title: str = ""


class Grounding(_Item):
    """A question, passages, and the ids of those that hold the answer (none: to be refused)."""

    question: Annotated[str, Field(min_length=1)]
    answers: tuple[str, ...] = ()
    passages: Annotated[tuple[Passage, ...], Field(min_length=1)]
    gold: tuple[str, ...] = ()
    kind: str = ""
    lang: str = ""

    @model_validator(mode="after")
    def _whole(self) -> "Grounding":
        known = {p.id for p in self.passages}
        if unknown := [g for g in self.gold if g not in known]:
            raise ValueError(f"gold {unknown[0]} is none of the passages")
        if self.gold and not any(a.strip() for a in self.answers):
            raise ValueError("has a gold passage but no answer")
        if self.gold and self.kind in (UNANSWERABLE, MISSED):
            raise ValueError(f"is called {self.kind} but has a gold passage")
        return self

    @property
    def answerable(self) -> bool:
        return bool(self.gold)

    @property
    def group(self) -> str:
        """`unanswerable` or `missed`; else what the file calls it, or `clean` or `noisy`."""
        if not self.gold:
            return MISSED if self.kind == MISSED else UNANSWERABLE
        if self.kind:
            return self.kind
        return "noisy" if len(self.passages) > len(self.gold) else "clean"

    @property
    def language(self) -> str:
        shown = "\n".join(p.text for p in self.passages)
        return self.lang or of_question(self.question, shown)


class Choice(_Item):
    """Multiple choice; `answer` is a letter from A or a number from 0."""

    question: Annotated[str, Field(min_length=1)]
    choices: Annotated[tuple[str, ...], Field(min_length=2, max_length=26)]
    answer: int

    @field_validator("answer", mode="before")
    @classmethod
    def _letter(cls, value: object) -> object:
        if isinstance(value, str) and len(value) == 1 and value.isalpha():
            return ord(value.upper()) - ord("A")
        return value

    @model_validator(mode="after")
    def _among(self) -> "Choice":
        if not 0 <= self.answer < len(self.choices):
            raise ValueError("answer is none of the choices")
        return self


class Maths(_Item):
    """A problem whose solution ends in `#### NUMBER`."""

    question: Annotated[str, Field(min_length=1)]
    answer: str

    @field_validator("answer")
    @classmethod
    def _numbered(cls, value: str) -> str:
        """Without a number to find, every answer without one would be right."""
        _, mark, wanted = value.rpartition("####")
        if not mark or not any(letter.isdigit() for letter in wanted):
            raise ValueError("does not end in `#### NUMBER`")
        return value


Item = TypeVar("Item", bound=_Item)
One = TypeVar("One")


def read(file: Path, kind: type[Item]) -> list[Item]:
    """All items of a JSONL file. Raises BadData naming file and line, or an empty file."""
    found = []
    for number, line in lines(file):
        try:
            found.append(kind.model_validate_json(line))
        except ValidationError as error:
            raise BadData(f"{file}:{number}: {first_reason(error)}") from error
    if not found:
        raise BadData(f"{file}: holds no items")
    return found


def read_text(file: Path) -> list[str]:
    """Texts of at most TEXT_CHARACTERS: the starts of the `text` of JSON lines, or pieces of a
    plain file. Raises BadData."""
    pieces = list(_json_texts(file) if file.suffix == ".jsonl" else _pieces(file))
    texts = [piece for piece in pieces if len(piece.split()) > 1 or len(piece) > 20]
    if not texts:
        raise BadData(f"{file}: holds no text")
    return texts


def drawn(found: Sequence[One], most: int, seed: int) -> list[One]:
    """At most `most`, the same ones for the same seed, in their order."""
    chosen = sorted(random.Random(seed).sample(range(len(found)), min(most, len(found))))
    return [found[n] for n in chosen]


def drawn_evenly(items: Sequence[Grounding], most: int, seed: int) -> list[Grounding]:
    """About `most`, as many of each language and kind as it has."""
    kinds: dict[tuple[str, str], list[Grounding]] = {}
    for item in items:
        kinds.setdefault((item.language, item.group), []).append(item)
    share = math.ceil(most / max(1, len(kinds)))
    return [item for kind in sorted(kinds) for item in drawn(kinds[kind], share, seed)]


def _json_texts(file: Path) -> Iterator[str]:
    for number, line in lines(file):
        try:
            text = json.loads(line)["text"]
        except (ValueError, KeyError, TypeError) as error:
            raise BadData(f"{file}:{number}: is no JSON object with `text`") from error
        if not isinstance(text, str):
            raise BadData(f"{file}:{number}: `text` is no text")
        yield text[:TEXT_CHARACTERS]


def _pieces(file: Path) -> Iterator[str]:
    for _, line in lines(file):
        for start in range(0, len(line), TEXT_CHARACTERS):
            yield line[start : start + TEXT_CHARACTERS].strip()
