"""Scanned pages: whether they can be read on this machine, which ones need it, what is kept. Pure
but for looking for Tesseract's data. Knows nothing of the engine, which `ingest.extract` calls."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingest.settings import IngestSettings

_WANTED = ("eng", "chi_sim")
_FOLDERS = (
    "/usr/share/tesseract-ocr/5/tessdata",
    "/usr/share/tesseract-ocr/4.00/tessdata",
    "/usr/share/tesseract/tessdata",
    "/usr/share/tessdata",
    "/usr/local/share/tessdata",
    "/opt/homebrew/share/tessdata",
)
_FEW = 10
"""Letters below which a page counts as an image: a scan may carry a number or a stamp."""
_SURE = 0.8
"""Mean confidence below which a page is looked at again, turned as its letters seem to stand."""
_NOISE = 0.6
"""Mean confidence below which no letters were there to be read."""
_WIDE = r"[\u3000-\u303f\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]"
_SPACED = re.compile(rf"(?<={_WIDE}) +(?={_WIDE})")


@dataclass(frozen=True, slots=True)
class Ocr:
    """How scanned pages are read. Without `languages` they are not, and `off` says why."""

    languages: str = ""
    off: str = "OCR is off"
    pages: int = 0
    folder: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the engine made of one image: lines of text, and how sure it is, from 0 to 1."""

    text: str
    confidence: float

    @property
    def is_sure(self) -> bool:
        return self.confidence >= _SURE


def choose(settings: IngestSettings, environ: Mapping[str, str]) -> Ocr:
    """OCR as the settings and the language data on this machine allow it."""
    if settings.ocr is False:
        return Ocr()
    folder = environ.get("TESSDATA_PREFIX") or next(filter(_is_folder, _FOLDERS), "")
    there = {file.stem for file in Path(folder).glob("*.traineddata")} if folder else set()
    wanted = [name for name in settings.ocr_languages.split("+") if name]
    missing = [name for name in wanted if name not in there]
    languages = wanted or [name for name in _WANTED if name in there]
    if not there or not languages:
        return Ocr(off="OCR is not installed")
    if missing:
        return Ocr(off=f"OCR has no data for the language {', '.join(missing)}")
    return Ocr("+".join(languages), "", settings.ocr_pages, folder)


def images(pages: Sequence[str]) -> list[int]:
    """The indexes of pages that hold hardly a letter."""
    return [i for i, page in enumerate(pages) if _letters(page) < _FEW]


def kept(page: str, readings: Sequence[Reading]) -> str:
    """The better of a page's own text and what was read of its image."""
    best = max(readings, key=lambda reading: reading.confidence)
    read = _SPACED.sub("", best.text) if best.confidence >= _NOISE else ""
    return read if _letters(read) > _letters(page) else page


def _letters(text: str) -> int:
    return sum(1 for c in text if c.isalnum())


def _is_folder(path: str) -> bool:
    return Path(path).is_dir()
