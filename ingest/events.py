"""What happened to a file in a watched folder, as watching and sweeping tell it."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["changed", "closed", "deleted", "moved"]


@dataclass(frozen=True, slots=True)
class FileEvent:
    """Something happened to `path` in `folder`; `dest` is where a moved file went. `at` is when it
    was seen (epoch seconds). `changed` says nothing of whether somebody still writes the file;
    `closed` says that nobody does."""

    kind: Kind
    folder: str
    path: str
    dest: str = ""
    at: float | None = None
