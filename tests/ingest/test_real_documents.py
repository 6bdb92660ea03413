"""Some two hundred real and broken documents: each is found, or fails by name; none hangs, and what
is cited of them is where the citation says."""

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pypdf
import pytest

from app.citations import cite
from ingest.parse import Parser
from ingest.settings import IngestSettings
from kb.chunking import chunk
from kb.errors import Unreadable
from kb.records import Parsed, page_at
from tests.ingest.homes import Home

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("VADEMECUM_DATA", ROOT.parent / "shared" / "data")) / "docs_ingest"
CODES = {"corrupt", "encrypted", "empty", "unsupported_type"}
SECONDS = 20
INSIDE = re.compile(r"kreuzberg|traceback|tesseract|pdfium|error\b|/|\n", re.IGNORECASE)
LATIN = re.compile(r"[a-z]{4,}")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not FOLDER.is_dir(), reason="set VADEMECUM_DATA to a folder with docs_ingest/"
    ),
]


@dataclass(frozen=True)
class Read:
    file: Path
    seconds: float
    parsed: Parsed | None
    failure: Unreadable | None


@pytest.fixture(scope="module")
def documents() -> Iterator[list[Read]]:
    parser = Parser(IngestSettings(parse_seconds=SECONDS, ocr=False))
    out = []
    for file in sorted(FOLDER.rglob("*")):
        if not file.is_file() or "groundtruth" in file.parts:
            continue
        begun = time.monotonic()
        parsed = failure = None
        try:
            parsed = parser.parse(file.name, file.read_bytes())
        except Unreadable as error:
            failure = error
        out.append(Read(file, time.monotonic() - begun, parsed, failure))
    assert parser.parse("after.txt", b"still there").text == "still there"
    yield out
    parser.close()


def test_every_document_is_found_or_fails_by_name(documents: list[Read]) -> None:
    for one in documents:
        assert one.seconds < SECONDS, one.file
        if one.failure is not None:
            assert one.failure.code in CODES, one.failure
            assert str(one.failure).startswith(f"{one.file.name} ")
            assert not INSIDE.search(str(one.failure)[len(one.file.name) :]), one.failure
        else:
            assert one.parsed is not None
            assert chunk(one.parsed.text, 160), one.file
    assert sum(one.parsed is not None for one in documents) >= 0.88 * len(documents)


def test_every_passage_is_a_slice_of_its_text(documents: list[Read]) -> None:
    for parsed in (one.parsed for one in documents if one.parsed):
        assert not any(c < " " and c not in "\n\t" for c in parsed.text)
        assert list(parsed.pages) == sorted(parsed.pages)
        for piece in chunk(parsed.text, 160):
            assert parsed.text[piece.start : piece.end] == piece.text


def test_every_citation_is_a_slice_of_the_text_that_is_stored(
    documents: list[Read], home: Home
) -> None:
    home.settings = home.settings.model_copy(update={"ocr": False})
    for number, one in enumerate(documents):
        shutil.copy(one.file, home.docs / f"{number}-{one.file.name}")
    home.sweep()
    kb = home.kb()
    assert kb.ledger.counts()["completed"] == sum(one.parsed is not None for one in documents)
    cited = set()
    for row in kb.store.rows("SELECT min(id), text FROM chunks GROUP BY document_id"):
        for hit in kb.search(row["text"][:400], 10).hits:
            document = kb.store.document(hit.file_id)
            assert document is not None
            last = hit.chunk.text.strip()[-60:]  # so that the citation is not just its beginning
            for claim in (row["text"], last):
                citation = cite(hit, 1, claim, index=0, attributed=False)
                assert document.text[citation.start : citation.end] == citation.quote
                assert citation.quote and citation.quote in hit.chunk.text
                assert citation.page == page_at(document.pages, citation.start)
            cited.add(hit.file_id)
    assert len(cited) >= 0.9 * kb.ledger.counts()["completed"]


@pytest.mark.filterwarnings("ignore")
def test_a_passage_of_a_pdf_stands_on_the_page_that_is_named(documents: list[Read]) -> None:
    checked = 0
    for one in documents:
        if one.parsed is None or one.file.suffix != ".pdf":
            continue
        pages = [page.extract_text().lower() for page in pypdf.PdfReader(one.file).pages]
        assert len(one.parsed.pages) == len(pages)
        for piece in chunk(one.parsed.text, 160):
            number = page_at(one.parsed.pages, piece.start)
            assert number is not None
            words = LATIN.findall(piece.text.lower())
            # A passage may run on to the next page; another program parts a few words otherwise.
            there = "".join(pages[number - 1 : number + 1])
            if len(words) >= 8 and there.strip():
                assert sum(word in there for word in words) >= 0.6 * len(words), one.file
                checked += 1
    assert checked > 200


def test_the_mails_of_outlook_are_read(documents: list[Read]) -> None:
    mails = [one.parsed for one in documents if one.file.suffix == ".msg"]
    assert mails
    for parsed in mails:
        assert parsed is not None
        assert parsed.text.startswith(f"# {parsed.title}\n\nFrom: ")


def test_the_words_that_are_expected_are_there(documents: list[Read]) -> None:
    rows = map(json.loads, (FOLDER / "manifest.jsonl").read_text(encoding="utf-8").splitlines())
    truths = {r["path"]: r["groundtruth"] for r in rows if "groundtruth" in r}
    found = expected = 0
    for one in documents:
        truth = truths.get(one.file.relative_to(FOLDER).as_posix())
        if truth and one.parsed:
            wanted = set(
                re.findall(r"\w{3,}", (FOLDER / truth).read_text(encoding="utf-8").lower())
            )
            found += len(wanted & set(re.findall(r"\w{3,}", one.parsed.text.lower())))
            expected += len(wanted)
    assert found >= 0.95 * expected
