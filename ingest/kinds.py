"""What a file is: by its content first, by its name where content leaves it open. Pure.

Knows the formats that can be read, and says clearly why another cannot.
"""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from kb.encoding import decode
from kb.errors import Unreadable

_OFFICE = "application/vnd.openxmlformats-officedocument."
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
PDF = "application/pdf"
HTML = "text/html"
EMAIL = "message/rfc822"
XML = "application/xml"
JSON = "application/json"
OUTLOOK = "application/vnd.ms-outlook"
WORD = f"{_OFFICE}wordprocessingml.document"
EXCEL = f"{_OFFICE}spreadsheetml.sheet"
PPTX = f"{_OFFICE}presentationml.presentation"
ODT = "application/vnd.oasis.opendocument.text"
ODP = "application/vnd.oasis.opendocument.presentation"

_BINARY = {
    PDF: "a PDF",
    WORD: "a Word document",
    EXCEL: "an Excel workbook",
    PPTX: "a PowerPoint presentation",
    "application/msword": "a Word document",
    "application/vnd.ms-excel": "an Excel workbook",
    "application/vnd.ms-powerpoint": "a PowerPoint presentation",
    OUTLOOK: "an Outlook message",
    ODT: "an OpenDocument text",
    ODP: "an OpenDocument presentation",
    "application/vnd.oasis.opendocument.spreadsheet": "an OpenDocument spreadsheet",
    "application/epub+zip": "an EPUB book",
    "application/rtf": "an RTF document",
}
# Text formats whose markup is turned into Markdown; every other text is taken as it stands.
_MARKED_UP = {
    ".html": HTML,
    ".htm": HTML,
    ".xhtml": HTML,
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".eml": EMAIL,
    ".xml": XML,
    ".nxml": XML,
    ".json": JSON,
    ".jsonl": JSON,
    ".ipynb": JSON,
    ".rst": "text/x-rst",
    ".org": "text/x-org",
}
_BY_NAME = {".msg": OUTLOOK}
_OPENINGS = {"<!doctype html": HTML, "<html": HTML, "{\\rtf": "application/rtf"}
# An OpenDocument file begins with its own name for itself; templates are read like documents.
_ODF = re.compile(rb"mimetype(application/vnd\.oasis\.opendocument\.[a-z]+)")


@dataclass(frozen=True, slots=True)
class Kind:
    """`mime` is empty for text that is taken as it stands; `text` is set for every text format."""

    mime: str
    text: str | None = None


def recognise(name: str, data: bytes, guess: str | None) -> Kind:
    """`guess` is what a library makes of the first bytes, None if nothing.

    Raises Unreadable: `empty`, `encrypted`, `corrupt`, `unsupported_type`.
    """
    if not data.strip():
        raise Unreadable("empty", f"{name} is empty")
    if data.startswith(_OLE) and "EncryptedPackage".encode("utf-16-le") in data:
        raise Unreadable("encrypted", f"{name} is protected by a password")
    suffix = PurePosixPath(name).suffix.lower()
    odf = _ODF.search(data[:200])
    guess = odf.group(1).decode() if odf else guess
    if guess in _BINARY:
        return Kind(guess)
    if guess is not None and guess.startswith("image/") and guess != "image/svg+xml":
        return Kind(guess)
    if data.startswith(_OLE) and suffix in _BY_NAME:
        return Kind(_BY_NAME[suffix])
    text = None if data.startswith((_OLE, b"PK\x03\x04", b"%PDF-")) else decode(data)
    if text is None:
        raise _not_readable(name, suffix, data)
    if not text.strip("\ufeff \t\r\n\0"):
        raise Unreadable("empty", f"{name} is empty")
    start = text[:200].lstrip("\ufeff \t\r\n").lower()
    by_content = next((m for opening, m in _OPENINGS.items() if start.startswith(opening)), "")
    return Kind(by_content or _MARKED_UP.get(suffix, ""), text)


def described(mime: str) -> str:
    """A format in words: `a PDF`, `a PNG image`."""
    if mime.startswith("image/"):
        return f"an image ({mime.removeprefix('image/')})"
    return _BINARY.get(mime, "a text file")


_PROMISES = {
    ".pdf": PDF,
    ".docx": WORD,
    ".xlsx": EXCEL,
    ".pptx": PPTX,
    ".doc": "application/msword",
    ".xls": "application/vnd.ms-excel",
    ".ppt": "application/vnd.ms-powerpoint",
    ".epub": "application/epub+zip",
    ".odt": ODT,
    ".odp": ODP,
    ".ods": "application/vnd.oasis.opendocument.spreadsheet",
}


def misnamed(name: str, mime: str) -> str:
    """`, not a PDF as its name says` where the name promises something else; empty otherwise."""
    promised = _PROMISES.get(PurePosixPath(name).suffix.lower(), mime)
    return "" if promised == mime else f", not {described(promised)} as its name says"


def _not_readable(name: str, suffix: str, data: bytes) -> Unreadable:
    if suffix in _PROMISES or suffix in _BY_NAME:
        promised = described(_PROMISES.get(suffix) or _BY_NAME[suffix])
        return Unreadable("corrupt", f"{name} is damaged, or is not {promised} at all")
    if b"mimetypeapplication/vnd.oasis" in data[:100]:
        return Unreadable("unsupported_type", f"{name} is of an OpenDocument type not yet read")
    if data.startswith(b"PK\x03\x04"):
        return Unreadable("unsupported_type", f"{name} is an archive; unpack it first")
    return Unreadable("unsupported_type", f"{name} is of a type that cannot be read as text")
