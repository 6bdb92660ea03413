"""Multipart files as they arrive: counted while they stream, names made safe. Keeps nothing.

Not FastAPI's form parameters: those read the whole body before it is known whether the caller may
send one, and without a limit for a file.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from app.errors import BadRequest, TooLarge
from app.uploads import safe_name

_MOST_FILES = 64
_FIELDS = 16


@dataclass(frozen=True, slots=True)
class Received:
    """The files of a form under their safe names, in order, and its other fields."""

    files: tuple[tuple[str, BinaryIO], ...]
    fields: dict[str, str]


@asynccontextmanager
async def received(request: Request, max_mb: int) -> AsyncIterator[Received]:
    """A request's files, in temporary ones that go afterwards.

    Raises BadRequest, TooLarge, UnsupportedType: for all files, before any can be kept.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise BadRequest("files are sent as multipart/form-data")
    try:
        form = await _Counting(request, max_mb).parse()
    except MultiPartException as error:
        raise BadRequest(error.message) from error
    except ClientDisconnect as error:
        raise BadRequest("the upload broke off") from error
    try:
        pairs = form.multi_items()
        files = [value for _, value in pairs if isinstance(value, UploadFile)]
        fields = {name: value for name, value in pairs if isinstance(value, str)}
        if not files:
            raise BadRequest("no file was sent", "file")
        yield Received(tuple((safe_name(f.filename), f.file) for f in files), fields)
    finally:
        await form.close()


def form_of(*names: str) -> dict[str, Any]:
    """What the OpenAPI description says of a form: its files' field, then its text fields."""
    file, *texts = names
    properties: dict[str, Any] = {
        file: {"type": "array", "items": {"type": "string", "format": "binary"}},
        **{name: {"type": "string"} for name in texts},
    }
    schema = {"type": "object", "properties": properties, "required": [file]}
    return {"requestBody": {"content": {"multipart/form-data": {"schema": schema}}}}


class _Counting(MultiPartParser):
    """Stops at the first byte too many, not when the disk is full."""

    def __init__(self, request: Request, max_mb: int) -> None:
        super().__init__(
            request.headers, request.stream(), max_files=_MOST_FILES, max_fields=_FIELDS
        )
        self._max_mb = max_mb
        self._bytes = 0

    def on_part_begin(self) -> None:
        self._bytes = 0
        super().on_part_begin()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._bytes += end - start
        if self._bytes > self._max_mb * 2**20:
            raise TooLarge(f"a file has more than {self._max_mb} MB")
        super().on_part_data(data, start, end)
