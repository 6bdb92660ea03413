"""A data file -> numbered records, whatever its encoding and whether an array or lines of JSON.

Raises BadData naming file and line, or the row of an array. Knows nothing of what a record means.
"""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kb.encoding import clean, decode
from kb.errors import BadData

Object = dict[str, Any]
_TEXT = (".txt", ".md")


@dataclass(frozen=True, slots=True)
class Record:
    """One object of a file. `place` is `:12` (a line) or `: row 12` (of an array)."""

    file: Path
    place: str
    value: Object

    @property
    def where(self) -> str:
        """For error messages."""
        return f"{self.file}{self.place}"

    @property
    def source(self) -> str:
        """For a row's origin: without the folders of this machine."""
        return f"{self.file.name}{self.place}"


def is_text(file: Path) -> bool:
    return file.suffix.lower() in _TEXT


def text(file: Path) -> str:
    """The whole file. Raises BadData if it is not there or holds no text."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise BadData(f"{file}: {error.strerror}") from error
    decoded = decode(raw)
    if decoded is None:
        raise BadData(f"{file}: is no text in any known encoding")
    # Controls and mojibake inside JSON strings stay escaped: the filters count them.
    return clean(decoded)


def records(file: Path) -> Iterator[Record]:
    """The objects of a JSON array or of JSON lines."""
    whole = text(file)
    array = whole.lstrip().startswith("[")
    found = 0
    for place, value in _array(file, whole) if array else _lines(file, whole):
        if not isinstance(value, dict):
            raise BadData(f"{file}{place}: is not a JSON object")
        if _is_torn(value):
            raise BadData(f"{file}{place}: holds half of a character (a lone \\ud800 to \\udfff)")
        found += 1
        yield Record(file, place, value)
    if not found:
        raise BadData(f"{file}: holds no rows")


def _array(file: Path, whole: str) -> Iterator[tuple[str, Any]]:
    for number, value in enumerate(_parse(file, whole), 1):
        yield f": row {number}", value


def _lines(file: Path, whole: str) -> Iterator[tuple[str, Any]]:
    # Not splitlines(): JSON strings may hold U+2028 and other separators as they are.
    for number, line in enumerate(whole.split("\n"), 1):
        if line.strip():
            yield f":{number}", _parse(file, line, number)


def _parse(file: Path, written: str, first: int = 1) -> Any:
    """JSON that begins in line `first` of a file."""
    try:
        return json.loads(written)
    except json.JSONDecodeError as error:
        raise BadData(f"{file}:{first + error.lineno - 1}: not JSON: {error.msg}") from error
    except RecursionError as error:
        raise BadData(f"{file}:{first}: not JSON that can be read: nested too deep") from error
    except ValueError as error:  # no other kind has a name of its own: Python limits integers
        most = sys.get_int_max_str_digits()
        before = re.split(rf"\d{{{most + 1}}}", written, maxsplit=1)[0]
        line = first + before.count("\n")
        raise BadData(f"{file}:{line}: not JSON that can be read: too many digits") from error


def _is_torn(value: Object) -> bool:
    """Whether a text holds what no encoding can write: JSON may escape half of a pair."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False
