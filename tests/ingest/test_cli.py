"""The real process: started, stopped, killed and started again."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kb.catalog import Catalog
from kb.embedding import FakeEmbedder
from kb.search import KnowledgeBase
from kb.settings import KbSettings
from tests.ingest.homes import eventually, files_of, states

ROOT = Path(__file__).resolve().parents[2]


def environment(home: Path, **more: str) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("VADEMECUM_")}
    return clean | {"VADEMECUM_HOME": str(home), "VADEMECUM_KB__EMBEDDER": "fake:64"} | more


def ingest(home: Path, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "ingest.cli", *arguments],
        cwd=ROOT,
        env=environment(home, **more),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def running(home: Path) -> Iterator["subprocess.Popen[str]"]:
    """`ingest run`, ready."""
    with subprocess.Popen(
        [sys.executable, "-m", "ingest.cli", "run"],
        cwd=ROOT,
        env=environment(home),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert any("ingest ready" in line for line in process.stderr)
        try:
            yield process
        finally:
            process.kill()
            process.stderr.read()


@contextmanager
def reader(home: Path) -> Iterator[KnowledgeBase]:
    kb = KnowledgeBase(Catalog(home).get("handbook").folder, FakeEmbedder(), KbSettings())
    yield kb
    kb.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_makes_the_first_knowledge_base_and_ends_cleanly(
    tmp_path: Path, number: signal.Signals
) -> None:
    with running(tmp_path) as process:
        (tmp_path / "docs" / "a.md").write_text("an okapi")
        with reader(tmp_path) as kb:
            eventually(lambda: files_of(kb, "okapi") == ["a.md"])
        process.send_signal(number)
        assert process.wait(10) == 0


def test_a_home_has_one_ingest(tmp_path: Path) -> None:
    with running(tmp_path):
        for command in ("run", "sweep"):
            done = ingest(tmp_path, command)
            assert done.returncode == 1
            assert "in use by process" in done.stderr


def test_a_killed_bulk_load_loses_nothing(tmp_path: Path) -> None:
    files = 250
    (tmp_path / "docs").mkdir()
    for n in range(files):
        text = f"# Rule {n}\n" + "\n".join(f"Paragraph {i} on animal{n}." for i in range(40))
        (tmp_path / "docs" / f"{n}.md").write_text(text)
    with running(tmp_path) as process, reader(tmp_path) as kb:
        eventually(lambda: kb.ledger.counts().get("completed", 0) > 20, 20)
        process.kill()
        process.wait()
        assert kb.ledger.counts()["completed"] < files
    with running(tmp_path) as process, reader(tmp_path) as kb:
        (tmp_path / "docs" / "0.md").unlink()
        eventually(lambda: kb.ledger.counts() == {"completed": files - 1}, 30)
        assert kb.store.counts()["documents"] == files - 1
        for n in (1, 57, files - 1):
            assert kb.search(f"animal{n}", 1, mode="lexical").hits[0].filename == f"{n}.md"
        assert kb.search("animal0", 9, mode="lexical").hits == ()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_sweep_ends_when_everything_is_known_and_status_tells_it(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("an okapi")
    (tmp_path / "docs" / "torn.pdf").write_bytes(b"%PDF-1.7 torn")
    assert ingest(tmp_path, "sweep").returncode == 0
    with reader(tmp_path) as kb:
        assert states(kb) == {"a.md": "completed", "torn.pdf": "failed"}
    done = ingest(tmp_path, "status", "--json")
    (told,) = json.loads(done.stdout)["knowledge_bases"]
    assert told["files"] == {"completed": 1, "failed": 1}
    assert [(f["filename"], f["code"]) for f in told["failed"]] == [("torn.pdf", "corrupt")]
    assert "torn.pdf may be damaged" in ingest(tmp_path, "status", "--kb", "handbook").stdout


def test_a_damaged_knowledge_base_is_named_and_the_others_are_followed(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("an okapi")
    assert ingest(tmp_path, "sweep").returncode == 0
    damaged = Catalog(tmp_path).add("damaged", "fake-64", 0)
    (damaged.folder / "knowledge.db").write_bytes(b"garbage " * 1000)
    (tmp_path / "docs" / "b.md").write_text("a tapir")
    with running(tmp_path), reader(tmp_path) as kb:
        eventually(lambda: states(kb).get("b.md") == "completed")
    done = ingest(tmp_path, "status", "--json")
    (told,) = json.loads(done.stdout)["knowledge_bases"]
    assert told["name"] == "handbook" and "damaged is left out" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "more", "code", "words"),
    [
        (["stats"], {}, 3, "status"),
        (["status", "--kb", "nope"], {}, 1, "no knowledge base 'nope'"),
        (["run"], {"VADEMECUM_INGEST__SETLE_SECONDS": "1"}, 3, "did you mean settle_seconds?"),
        (["run"], {"VADEMECUM_INGEST__SETTLE_SECONDS": "x"}, 3, "settle_seconds = 'x'"),
        (["--help"], {}, 0, ""),
    ],
)
def test_exit_codes_tell_what_was_wrong(
    tmp_path: Path, arguments: list[str], more: dict[str, str], code: int, words: str
) -> None:
    done = ingest(tmp_path, *arguments, **more)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
