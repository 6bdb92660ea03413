"""Some two hundred real and broken documents: each is text, or fails by name; none hangs."""

import os
import time
from pathlib import Path

import pytest

from ingest.parse import Parser
from ingest.settings import IngestSettings
from kb.chunking import chunk
from kb.errors import Unreadable

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("VADEMECUM_DATA", ROOT.parent / "shared" / "data")) / "docs_ingest"
CODES = {"corrupt", "encrypted", "empty", "unsupported_type"}


@pytest.mark.slow
@pytest.mark.skipif(not FOLDER.is_dir(), reason="set VADEMECUM_DATA to a folder with docs_ingest/")
def test_every_document_is_text_or_fails_by_name() -> None:
    parser = Parser(IngestSettings(parse_seconds=20))
    read = total = 0
    for file in sorted(FOLDER.rglob("*")):
        if not file.is_file() or "groundtruth" in file.parts:
            continue
        total += 1
        started = time.monotonic()
        try:
            parsed = parser.parse(file.name, file.read_bytes())
        except Unreadable as error:
            assert error.code in CODES, error
            assert str(error).startswith(file.name)
            continue
        finally:
            assert time.monotonic() - started < 20
        read += 1
        assert not any(c < " " and c not in "\n\t" for c in parsed.text)
        assert list(parsed.pages) == sorted(parsed.pages)
        for piece in chunk(parsed.text, 160):
            assert parsed.text[piece.start : piece.end] == piece.text
    parser.close()
    assert read >= 0.85 * total
