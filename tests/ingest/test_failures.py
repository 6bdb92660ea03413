"""A file that fails is named with its reason, once or after trying again, and alone."""

import random
import sqlite3
import time
from collections.abc import Sequence

import numpy as np
import pytest

from ingest.failures import classify, code_of
from ingest.files import StillChanging, read
from ingest.parse import Parser, ParserDown
from ingest.settings import IngestSettings, RetryPolicy
from kb.embedding import FakeEmbedder, Vectors
from kb.errors import EmbedderDown, Permanent, StoreBroken, Transient, Unreadable
from kb.records import Parsed
from tests.ingest.documents import PNG, pdf
from tests.ingest.homes import Home, eventually, files_of, states


class FlakyEmbedder(FakeEmbedder):
    """Is down for the first `failures` calls."""

    def __init__(self, failures: int, error: Exception) -> None:
        super().__init__()
        self.failures = failures
        self.error = error
        self.calls = 0

    def passages(self, texts: Sequence[str]) -> Vectors:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return super().passages(texts)


def test_bad_files_fail_by_name_while_others_go_on(home: Home) -> None:
    bad = {
        "torn.pdf": (pdf([["a"]])[:200], "corrupt"),
        "secret.pdf": (pdf([["a"]], password="x"), "encrypted"),
        "empty.md": (b"", "empty"),
        "photo.pdf": (PNG, "unsupported_type"),
        "huge.txt": (b"x" * (2**20 + 1), "too_large"),
    }
    home.settings = home.settings.model_copy(update={"max_file_mb": 1, "ocr": False})
    for name, (data, _) in bad.items():
        (home.docs / name).write_bytes(data)
    for n in range(5):
        home.write(f"good{n}.md", f"okapi number {n}")
    home.sweep()
    kb = home.kb()
    assert sorted(files_of(kb, "okapi")) == [f"good{n}.md" for n in range(5)]
    failed = {f.path: f for f in kb.ledger.all() if f.status == "failed"}
    assert {name: f.error_code for name, f in failed.items()} == {
        name: code for name, (_, code) in bad.items()
    }
    for name, file in failed.items():
        assert file.error_message is not None
        assert file.error_message.startswith(name)
        assert str(home.path) not in file.error_message


def test_a_failed_file_is_not_tried_again_until_it_changes(home: Home) -> None:
    file = home.docs / "a.pdf"
    file.write_bytes(b"%PDF-1.7 torn")
    home.sweep()
    (first,) = home.kb().ledger.all()
    home.sweep()
    assert home.kb().ledger.all() == [first]
    file.write_bytes(pdf([["Okapi", "An okapi."]]))
    home.sweep()
    assert states(home.kb()) == {"a.pdf": "completed"}


def test_an_edit_that_cannot_be_read_retires_the_old_passages(home: Home) -> None:
    kb = home.kb()
    with home.following():
        file = home.docs / "a.pdf"
        file.write_bytes(pdf([["Rule", "The okapi rule."]]))
        eventually(lambda: files_of(kb, "okapi") == ["a.pdf"])
        file.write_bytes(b"%PDF-1.7 torn")
        eventually(lambda: states(kb) == {"a.pdf": "failed"})
        assert files_of(kb, "okapi") == []


def test_a_passing_failure_is_tried_again_until_it_passes(home: Home) -> None:
    home.write("a.md", "an okapi")
    embedder = FlakyEmbedder(2, EmbedderDown("no answer"))
    home.sweep(embedder=embedder)
    assert embedder.calls == 3
    (file,) = home.kb().ledger.all()
    assert (file.status, file.attempts, file.error_code) == ("completed", 2, None)


def test_an_embedder_that_is_away_does_not_make_calls_larger(home: Home) -> None:
    sizes: list[int] = []

    class Away(FlakyEmbedder):
        def passages(self, texts: Sequence[str]) -> Vectors:
            sizes.append(len(texts))
            return super().passages(texts)

    home.write("book.md", "\n".join(f"Sentence {n} of a long book." for n in range(2000)))
    home.sweep(embedder=Away(4, EmbedderDown("no answer")))
    assert states(home.kb()) == {"book.md": "completed"}
    assert len(set(sizes[:5])) == 1 and sum(sizes[4:]) > 20 * sizes[0]


def test_a_reader_that_was_slow_or_killed_is_tried_again_and_the_old_passages_serve(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.settings = home.settings.model_copy(update={"retry_max_seconds": 0.02})
    home.write("a.md", "an okapi")
    home.sweep()
    real = Parser.parse
    errors: list[Exception] = []
    served: list[list[str]] = []

    def parse(self: Parser, path: str, data: bytes) -> Parsed:
        served.append(files_of(home.kb(), "okapi"))
        if errors:
            raise errors.pop()
        return real(self, path, data)

    monkeypatch.setattr(Parser, "parse", parse)
    errors += [ParserDown("killed"), Unreadable("timeout", "slow")]
    home.write("a.md", "a bongo")
    home.sweep()
    assert files_of(home.kb(), "bongo") == ["a.md"]
    assert served == [["a.md"]] * 3
    errors += [Unreadable("timeout", "slow")] * 3
    home.write("a.md", "a tapir")
    home.sweep()
    (file,) = home.kb().ledger.all()
    assert (file.status, file.error_code, errors) == ("failed", "timeout", [])


def test_old_passages_serve_while_new_ones_cannot_be_made(home: Home) -> None:
    home.settings = home.settings.model_copy(update={"retry_attempts": 2})
    home.write("a.md", "an okapi")
    home.sweep()
    home.write("a.md", "a bongo")
    home.sweep(embedder=FlakyEmbedder(99, EmbedderDown("no answer")))
    kb = home.kb()
    (file,) = kb.ledger.all()
    assert (file.status, file.error_code) == ("failed", "temporary")
    assert files_of(kb, "okapi") == ["a.md"]
    # Given up for now only: the next sweep takes it up again.
    home.sweep()
    assert files_of(kb, "bongo") == ["a.md"]
    assert files_of(kb, "okapi") == []


def test_what_nobody_foresaw_is_logged_and_does_not_end_the_worker(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    home.write("a.md", "an okapi")
    home.sweep(embedder=FlakyEmbedder(1, ZeroDivisionError("surprise")))
    assert states(home.kb()) == {"a.md": "completed"}
    assert "surprise" in caplog.text


def test_a_damaged_knowledge_base_is_no_files_fault(home: Home) -> None:
    home.write("a.md", "an okapi")
    home.sweep()
    home.write("a.md", "a bongo")
    with pytest.raises(StoreBroken, match="damaged"):
        home.sweep(embedder=FlakyEmbedder(1, StoreBroken("knowledge.db is damaged")))
    kb = home.kb()
    assert states(kb) == {"a.md": "in_progress"}
    assert files_of(kb, "okapi") == ["a.md"]


def test_vectors_of_the_wrong_shape_never_reach_the_store(home: Home) -> None:
    class Short(FakeEmbedder):
        def passages(self, texts: Sequence[str]) -> Vectors:
            return np.zeros((0, 64), np.float32)

    home.settings = home.settings.model_copy(update={"retry_attempts": 1})
    home.write("a.md", "an okapi")
    home.sweep(embedder=Short())
    assert states(home.kb()) == {"a.md": "failed"}


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (Unreadable("encrypted", "a.pdf is locked"), Permanent, "encrypted"),
        (EmbedderDown("no answer"), Transient, "temporary"),
        (PermissionError(13, "Permission denied", "/srv/x/a.pdf"), Permanent, "unreadable"),
        (OSError(5, "Input/output error", "/srv/x/a.pdf"), Transient, "temporary"),
        (sqlite3.OperationalError("database is locked"), Transient, "temporary"),
        (ZeroDivisionError(), Transient, "temporary"),
    ],
)
def test_one_function_decides_what_is_permanent(
    error: Exception, kind: type[Exception], code: str
) -> None:
    problem = classify(error, "x/a.pdf")
    assert isinstance(problem, kind)
    assert code_of(problem) == code
    assert "/srv" not in str(problem)


def test_delays_double_up_to_a_maximum_with_jitter() -> None:
    policy = RetryPolicy(1, 60, 8)
    rng = random.Random(0)
    for attempts, full in enumerate([1, 2, 4, 8, 16, 32, 60, 60]):
        delays = [policy.delay(attempts, rng) for _ in range(50)]
        assert full / 2 <= min(delays) < max(delays) <= full
    assert policy.delay(5000, rng) <= 60


def test_a_file_that_is_being_written_is_left_alone(home: Home) -> None:
    file = home.write("a.md", "half a sen")
    written = file.stat().st_mtime
    with file.open("a"):
        with pytest.raises(StillChanging) as caught:
            read(home.docs, "a.md", max_bytes=99, settle=5, now=written + 1)
        assert caught.value.wait == pytest.approx(4)
        assert read(home.docs, "a.md", max_bytes=99, settle=5, now=written + 6).data
    # An empty file is often about to be filled.
    file.write_bytes(b"")
    with pytest.raises(StillChanging):
        read(home.docs, "a.md", max_bytes=99, settle=0.1, now=file.stat().st_mtime + 1)


def test_a_slow_writer_is_waited_for(home: Home) -> None:
    kb = home.kb()
    home.settings = IngestSettings(sweep_seconds=3600)  # as users have it
    with home.following():
        with (home.docs / "a.pdf").open("wb") as file:
            data = pdf([["Okapi", "An okapi."]])
            for begin in range(0, 300, 100):
                file.write(data[begin : begin + 100])
                file.flush()
                eventually(lambda: "a.pdf" in states(kb))
                time.sleep(0.5)
                assert states(kb) == {"a.pdf": "in_progress"}
            file.write(data[300:])
        closed = time.monotonic()
        eventually(lambda: files_of(kb, "okapi") == ["a.pdf"])
        assert time.monotonic() - closed < home.settings.settle_seconds


def test_a_file_that_nobody_has_open_is_taken_at_once_though_nobody_saw_it_closed(
    home: Home,
) -> None:
    home.settings = IngestSettings(settle_seconds=3600)
    file = home.write("a.md", "an okapi")
    now = file.stat().st_mtime
    with file.open("a"), pytest.raises(StillChanging):
        read(home.docs, "a.md", max_bytes=99, settle=3600, now=now)
    with file.open():  # somebody reads it
        assert read(home.docs, "a.md", max_bytes=99, settle=3600, now=now).data == b"an okapi"
    home.sweep()
    assert states(home.kb()) == {"a.md": "completed"}
