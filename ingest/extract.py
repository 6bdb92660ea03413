"""The door to kreuzberg, the only file that imports it: documents -> Markdown, PDF pages, OCR.

Runs in the child process. Knows no format but PDF and images; `ingest.formats` chooses. Imports
little, so that the child starts quickly and stays small.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import kreuzberg

from ingest.kinds import PDF, described
from ingest.reflow import heading_key
from ingest.scans import Ocr, Reading
from kb.errors import Unreadable

_DPI = 200
COLUMNS, TURNED = 3, 1
"""Tesseract's page modes: columns are found; and the page is first turned upright."""


@dataclass(frozen=True, slots=True)
class Extracted:
    """A document's Markdown as kreuzberg writes it, and what the file says about itself."""

    markdown: str
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PdfText:
    """The lines of each page; the levels of lines (see `heading_key`) that may be headings."""

    pages: list[str]
    headings: Mapping[str, int]
    title: object


def guess(data: bytes) -> str | None:
    """What kreuzberg makes of the first bytes, None if nothing."""
    try:
        return kreuzberg.detect_mime_type(data)
    except RuntimeError:  # kreuzberg's word for "no known format"
        return None


def document(name: str, data: bytes, mime: str) -> Extracted:
    """Raises Unreadable, as every function here does."""
    result = _run(name, data, mime)
    return Extracted(result.content, result.metadata)


def pdf(name: str, data: bytes) -> PdfText:
    """The text that the pages hold; a scanned page's is empty."""
    result = _run(name, data, PDF, include_document_structure=True)
    nodes = result.document["nodes"] if result.document else []
    contents = [node["content"] for node in nodes]
    headings = {
        heading_key(str(c["text"])): min(max(int(c["level"]), 1), 6)
        for c in contents
        if c.get("node_type") == "heading" and "\n" not in str(c["text"])
    }
    pages = [page["content"] for page in result.pages or ()]
    return PdfText(pages, headings, result.metadata.get("title"))


def page_images(name: str, data: bytes, wanted: Sequence[int]) -> Iterator[bytes]:
    """PNG images of these pages of a PDF, one at a time."""
    # Pages are rendered from a path only; an unnamed file is gone however this process ends.
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        for index in wanted:
            try:
                yield kreuzberg.render_pdf_page(f"/dev/fd/{file.fileno()}", index, dpi=_DPI)
            except (kreuzberg.KreuzbergError, RuntimeError, ValueError) as error:
                message = f"page {index + 1} of {name} cannot be shown: it may be damaged"
                raise Unreadable("corrupt", message) from error


def read_image(name: str, image: bytes, mime: str, ocr: Ocr, mode: int) -> Reading:
    """The lines of an image (of a TIFF's first page). `mode` is COLUMNS or TURNED."""
    engine = kreuzberg.TesseractConfig(psm=mode, language=ocr.languages, use_cache=False)
    options: dict[str, Any] = {"element_config": {"include_elements": True}}
    config = kreuzberg.OcrConfig(
        backend="tesseract", language=ocr.languages, tesseract_config=engine, **options
    )
    result = _run(name, image, mime, ocr=config, output_format="plain")
    sure = [e["confidence"]["recognition"] for e in result.ocr_elements or () if e["confidence"]]
    return Reading(result.content, sum(sure) / len(sure) if sure else 0.0)


def _run(name: str, data: bytes, mime: str, **options: Any) -> kreuzberg.ExtractionResult:
    """Call kreuzberg and translate its errors: its messages may hold paths and library names."""
    config = kreuzberg.ExtractionConfig(
        use_cache=False,  # it would write into the working directory
        pages=kreuzberg.PageConfig(extract_pages=True),
        concurrency=kreuzberg.ConcurrencyConfig(max_threads=2),
        **{"output_format": "markdown", **options},
    )
    try:
        return kreuzberg.extract_bytes_sync(data, mime, config=config)
    except kreuzberg.OCRError as error:
        raise Unreadable("ocr", f"{name} needs OCR, which failed") from error
    except (kreuzberg.KreuzbergError, RuntimeError, ValueError) as error:
        if "password" in str(error).lower() or "encrypted" in str(error).lower():
            raise Unreadable("encrypted", f"{name} is protected by a password") from error
        raise Unreadable(
            "corrupt", f"{name} may be damaged: it cannot be opened as {described(mime)}"
        ) from error
