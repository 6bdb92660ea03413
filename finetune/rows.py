"""A training row, and a file of rows. Knows nothing of where rows come from or who trains on them.

One JSON object a line:

    {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}],
     "role": "domain", "ability": "grounding", "origin": {"source": "qa.jsonl:12"}}

A row of plain text (stage pt) has `text` instead of `messages`; one of preferences (rm, dpo) also
`rejected`, the worse last answer; one for grpo `answer`, what a right answer holds.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from kb.errors import BadData
from kb.settings import Section

Role = Literal["domain", "general", "replay"]
"""What a row is for: the field's own; general abilities; text of the kind the model grew up on."""

TRAIN, HELD_OUT, MANIFEST = "train.jsonl", "val.jsonl", "data.json"
"""Of a set: rows to train on, rows held out, and the account of `finetune data`."""

MOST_CHARACTERS = 200_000
"""Of one row; more is a file in the wrong place, not a row."""


class Message(Section):
    role: Literal["system", "user", "assistant"]
    content: str


class Origin(Section):
    """Where a row comes from. An edited document marks the rows made from it as stale."""

    source: str
    """File and line (`qa.jsonl:12`), or `kb:NAME`."""
    licence: str = ""
    chunks: tuple[int, ...] = ()
    """Ids of the passages that the prompt shows, the gold one first."""
    documents: tuple[str, ...] = ()
    """SHA-256 of the documents that they were cut from."""
    gold: str = ""
    """SHA-256 of the document that answers, shown or left out."""
    generation: int = 0
    """Of the knowledge base, when the row was made."""


class Row(Section):
    """One example. Raises pydantic's ValidationError for what no stage could train on."""

    messages: tuple[Message, ...] = ()
    text: str = ""
    rejected: str | None = None
    answer: str | None = None
    role: Role = "domain"
    ability: Annotated[str, Field(min_length=1)] = "chat"
    language: str = ""
    origin: Origin

    @model_validator(mode="after")
    def _whole(self) -> "Row":
        if bool(self.messages) == bool(self.text):
            raise ValueError("needs either messages or text")
        if self.messages:
            _check_order(self.messages)
        if self.rejected is not None and not self.rejected.strip():
            raise ValueError("rejected is empty")
        if self.characters > MOST_CHARACTERS:
            raise ValueError(f"has {self.characters} characters, more than {MOST_CHARACTERS}")
        return self

    @property
    def characters(self) -> int:
        answers = len(self.text) + len(self.rejected or "")
        return answers + sum(len(m.content) for m in self.messages)

    @property
    def prompt(self) -> tuple[Message, ...]:
        """Everything before the last answer."""
        return self.messages[:-1]

    @property
    def reply(self) -> str:
        """The last answer; empty for a row of plain text."""
        return self.messages[-1].content if self.messages else ""

    @property
    def worse(self) -> "Row":
        """The same conversation with the rejected last answer."""
        last = Message(role="assistant", content=self.rejected or "")
        return self.model_copy(update={"messages": (*self.prompt, last)})


def _check_order(messages: tuple[Message, ...]) -> None:
    turns = messages[1:] if messages[0].role == "system" else messages
    wanted = ("user", "assistant")
    for n, message in enumerate(turns):
        if message.role != wanted[n % 2]:
            raise ValueError(f"message {n + 1} is of role {message.role}, not {wanted[n % 2]}")
        if not message.content.strip():
            raise ValueError(f"message {n + 1} ({message.role}) is empty")
    if len(turns) % 2 or not turns:
        raise ValueError("does not end with an answer of the assistant")


def read(file: Path) -> Iterator[Row]:
    """The rows of a file. Raises BadData naming file and line."""
    for number, line in lines(file):
        yield parse(line, f"{file}:{number}")


def parse(line: str, where: str) -> Row:
    """One line. Raises BadData that starts with `where`."""
    try:
        return Row.model_validate_json(line)
    except ValidationError as error:
        raise BadData(f"{where}: {first_reason(error)}") from error


def lines(file: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not blank. Raises BadData if the file is not there or not UTF-8."""
    try:
        with file.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, line
    except OSError as error:
        raise BadData(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadData(f"{file}: not UTF-8 ({error.reason} at byte {error.start})") from error


def first_reason(error: ValidationError) -> str:
    """What pydantic holds against a row, in one line."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


def write(rows: Iterable[Row], file: Path) -> int:
    """Write beside, then rename; returns how many."""
    beside = file.with_name(f".{file.name}.writing")
    count = 0
    with beside.open("w", encoding="utf-8") as stream:
        for row in rows:
            document = row.model_dump(mode="json", exclude_defaults=True)
            stream.write(json.dumps(document, ensure_ascii=False) + "\n")
            count += 1
    beside.replace(file)
    return count
