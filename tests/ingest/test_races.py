"""Saves that come at an awkward moment are taken all the same, by their event or by a sweep."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest.parse import Parser
from kb.records import Parsed
from tests.ingest.documents import pdf
from tests.ingest.homes import Home, eventually, files_of, states

TORN = pdf([["Rule", "The okapi rule."]])[:200]
WHOLE = pdf([["Rule", "The bongo rule."]])


def when_parsed(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """`act` once, when the first file has been parsed and nothing is known of that yet."""
    real = Parser.parse
    left = [act]

    def parse(self: Parser, path: str, data: bytes) -> Parsed:
        try:
            return real(self, path, data)
        finally:
            if left:
                left.pop()()

    monkeypatch.setattr(Parser, "parse", parse)


def test_a_save_while_its_old_version_fails_is_not_taken_for_the_failed_one(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = home.docs / "a.pdf"
    file.write_bytes(TORN)
    when_parsed(monkeypatch, lambda: file.write_bytes(WHOLE))
    home.sweep()
    assert states(home.kb()) == {"a.pdf": "failed"}
    home.sweep()
    assert files_of(home.kb(), "bongo") == ["a.pdf"]


def test_a_file_too_large_is_not_tried_again_until_it_changes(home: Home) -> None:
    home.settings = home.settings.model_copy(update={"max_file_mb": 1})
    file = home.write("a.txt", "okapi " * 200_000)
    home.sweep()
    (first,) = home.kb().ledger.all()
    assert first.error_code == "too_large"
    home.sweep()
    assert home.kb().ledger.all() == [first]
    file.write_text("a short okapi")
    home.sweep()
    assert files_of(home.kb(), "okapi") == ["a.txt"]


def test_a_failed_file_that_is_saved_again_is_read_again_whatever_its_times(home: Home) -> None:
    kb = home.kb()
    with home.following():
        file = home.docs / "a.pdf"
        file.write_bytes(TORN)
        eventually(lambda: states(kb) == {"a.pdf": "failed"})
        (failed,) = kb.ledger.all()
        replace(file, TORN)
        eventually(lambda: kb.ledger.all()[0].changed_at > failed.changed_at)


def test_a_file_replaced_by_one_of_the_same_size_and_time_is_read(home: Home) -> None:
    kb = home.kb()
    with home.following():
        file = home.write("a.md", "an okapi")
        eventually(lambda: files_of(kb, "okapi") == ["a.md"])
        replace(file, b"my bongo")
        eventually(lambda: files_of(kb, "bongo") == ["a.md"])
        assert files_of(kb, "okapi") == []


def replace(file: Path, data: bytes) -> None:
    """Put another file in its place that was changed at the same moment."""
    draft = file.with_name(".draft")
    draft.write_bytes(data)
    at = file.stat().st_mtime_ns
    os.utime(draft, ns=(at, at))
    draft.replace(file)
