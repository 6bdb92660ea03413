"""What users thought of answers: one line for each judged answer in `feedback/feedback.jsonl`.

`finetune data` reads that file as it is (format `feedback`). Only an answer that was judged comes
to the disk: the newest of the others are remembered in memory, and then forgotten.
"""

import json
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from app.auth import Caller
from app.errors import AlreadyRated, UnknownCompletion
from kb.durable import sync

Rating = Literal["up", "down"]
_REMEMBERED = 1000


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer as it was given. `prompt`: what the model was asked, references included."""

    prompt: Sequence[Mapping[str, Any]]
    text: str
    knowledge: Mapping[str, Any]


class Feedback:
    """Remembers answers, and writes what was thought of them."""

    def __init__(
        self, folder: Path, clock: Callable[[], float] = time.time, most: int = _REMEMBERED
    ) -> None:
        self._file = folder / "feedback.jsonl"
        self._clock = clock
        self._most = most
        self._lock = threading.Lock()
        self._answers: OrderedDict[str, tuple[str, Answered | None]] = OrderedDict()

    def remember(self, completion: str, caller: Caller, answered: Answered) -> None:
        """`completion`: its id. The oldest is forgotten when there are too many."""
        with self._lock:
            self._answers[completion] = (caller.name, answered)
            while len(self._answers) > self._most:
                self._answers.popitem(last=False)

    def rate(
        self, completion: str, caller: Caller, rating: Rating, comment: str, correction: str
    ) -> None:
        """Write one line. Raises UnknownCompletion (of another caller's, too), AlreadyRated;
        OSError, and then it can be rated again."""
        with self._lock:
            name, answered = self._answers.get(completion, ("", None))
            if completion not in self._answers or name != caller.name:
                raise UnknownCompletion(
                    f"no answer {completion!r} is remembered: they are for a while,"
                    " and until the server starts anew"
                )
            if answered is None:
                raise AlreadyRated(f"{completion} was rated already")
            self._append(
                {
                    "completion_id": completion,
                    "created": int(self._clock()),
                    "key": caller.name,
                    "rating": rating,
                    "comment": comment,
                    "correction": correction,
                    "messages": [dict(message) for message in answered.prompt],
                    "completion": answered.text,
                    "release": answered.knowledge.get("release", ""),
                    "generation": answered.knowledge.get("generation", {}),
                }
            )
            self._answers[completion] = (name, None)

    def _append(self, line: Mapping[str, Any]) -> None:
        """Whole or not at all: what a crash or a full disk left of a line is cut off first."""
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "r+b") as file:
            _cut_torn(file)
            file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        sync(self._file.parent)


def _cut_torn(file: IO[bytes]) -> None:
    """Leaves `file` at its end, which is the end of a line."""
    end = file.seek(0, os.SEEK_END)
    if not end:
        return
    file.seek(end - 1)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.seek(0, os.SEEK_END)
