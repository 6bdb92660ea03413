"""Scanned pages are read where OCR is installed, each in its own time; elsewhere that is said."""

import io
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont
from reportlab.lib.pagesizes import A5
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen import canvas

from ingest.parse import Parser, _exchange
from ingest.scans import Ocr, Reading, choose, images, kept
from ingest.settings import IngestSettings
from kb.errors import Unreadable

LINES = ("The trial period may not exceed", "one month, says the okapi.")
needs_ocr = pytest.mark.skipif(
    not choose(IngestSettings(ocr_languages="eng"), os.environ).languages,
    reason="Tesseract's data for English (Debian: tesseract-ocr) is not installed",
)


def photo(lines: tuple[str, ...] = LINES, turn: int = 0) -> Image.Image:
    image = Image.new("L", (1200, 600), 255)
    font = ImageFont.load_default(size=56)
    for number, line in enumerate(lines):
        ImageDraw.Draw(image).text((100, 120 + 90 * number), line, font=font, fill=0)
    return image.rotate(turn, expand=True, fillcolor=255)


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def scan(*pages: Image.Image | str) -> bytes:
    """A PDF of images and lines of text."""
    out = io.BytesIO()
    page = canvas.Canvas(out, pagesize=A5)
    for content in pages:
        if isinstance(content, str):
            page.drawString(40, 500, content)
        else:
            page.drawImage(ImageReader(content), 10, 200, 400, 200, preserveAspectRatio=True)
        page.showPage()
    page.save()
    return out.getvalue()


def data(folder: Path, *languages: str) -> dict[str, str]:
    for language in languages:
        (folder / f"{language}.traineddata").touch()
    return {"TESSDATA_PREFIX": str(folder)}


@needs_ocr
def test_scanned_pages_stand_between_written_ones() -> None:
    data = scan("A written page about bongos.", photo(), "The last page.")
    with closing(Parser(IngestSettings())) as parser:
        parsed = parser.parse("a.pdf", data)
    starts = [parsed.text[at:].split("\n")[0] for at in parsed.pages]
    assert starts == ["A written page about bongos.", " ".join(LINES), "The last page."]


@needs_ocr
@pytest.mark.parametrize("turn", [0, 90])
def test_images_are_read_upright_and_turned(turn: int) -> None:
    with closing(Parser(IngestSettings())) as parser:
        text = parser.parse("a.png", png(photo(turn=turn))).text
    assert text.split() == " ".join(LINES).split()


@needs_ocr
def test_a_scan_of_too_many_pages_fails_at_once_and_by_name() -> None:
    said = r"^a\.pdf has 2 scanned pages; at most 1 are read"
    parser = Parser(IngestSettings(ocr_pages=1))
    with closing(parser), pytest.raises(Unreadable, match=said):
        parser.parse("a.pdf", scan(photo(), photo()))


def test_without_language_data_a_scan_says_what_is_missing(tmp_path: Path) -> None:
    assert choose(IngestSettings(), data(tmp_path)).off == "OCR is not installed"
    assert choose(IngestSettings(ocr=False), data(tmp_path, "eng")).off == "OCR is off"
    german = choose(IngestSettings(ocr=True, ocr_languages="eng+deu"), data(tmp_path, "eng"))
    assert german == Ocr(off="OCR has no data for the language deu")


def test_the_languages_are_those_that_are_installed_and_wanted(tmp_path: Path) -> None:
    assert choose(IngestSettings(), data(tmp_path, "osd", "fra", "eng")).languages == "eng"
    chosen = choose(IngestSettings(ocr=True), data(tmp_path, "chi_sim"))
    assert chosen.languages == "eng+chi_sim"
    assert choose(IngestSettings(ocr_languages="fra"), data(tmp_path)).languages == "fra"


@pytest.mark.parametrize("value", [True, False, "true", "false", "auto"])
def test_ocr_is_a_switch_or_auto(value: bool | str) -> None:
    settings = IngestSettings.model_validate({"ocr": value})
    assert settings.ocr == {"true": True, "false": False}.get(str(value).lower(), "auto")


def test_pages_with_a_stamp_are_images_and_pages_with_a_sentence_are_not() -> None:
    assert images(["", "83", "A whole sentence.", " \n "]) == [0, 1, 3]


def test_noise_is_dropped_and_chinese_is_closed_up() -> None:
    assert kept("83", [Reading("eseyoed OUU}UUOD", 0.4), Reading("noise noise noise", 0.5)]) == "83"
    assert kept("", [Reading("noise noise", 0.3), Reading("试 用 期 为 six months", 0.9)]) == (
        "试用期为 six months"
    )
    assert kept("A text of its own", [Reading("less", 0.99)]) == "A text of its own"


def test_each_page_that_is_done_gives_the_next_one_time() -> None:
    for pages, in_time in ((4, True), (1, False)):
        program = (
            "import time\n"
            f"for n in range({pages}): time.sleep(0.5); print('{{\"page\": true}}', flush=True)\n"
            'time.sleep(0.5 if %d > 1 else 9); print(\'{"text": "x"}\', flush=True)' % pages
        )
        child = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        reply, left = _exchange(child, b"", 1.5)
        child.kill()
        child.communicate()
        assert (reply, left) == (({"text": "x"}, True) if in_time else (None, False))
