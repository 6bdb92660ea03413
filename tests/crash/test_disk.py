"""Full disks, torn files, a cut log: said, survived and mended; nothing acknowledged is lost."""

import logging
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kb.errors import StoreBroken
from kb.layout import DATABASE
from kb.verify import verify
from tests.ingest.homes import QUICK, Home, eventually, files_of, states

MB = 2**20


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Home]:
    """A home on a disk of 16 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    home = Home(disk / "home", settings=QUICK.model_copy(update={"retry_attempts": 1000}))
    try:
        yield home
    finally:
        for reader in home.opened:
            reader.close()
        home.opened.clear()
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path, leave: int) -> Path:
    """A file that leaves so many bytes free."""
    room = os.statvfs(disk)
    filler = disk / "filler"
    with filler.open("wb") as file:
        file.write(b"x" * max(0, room.f_bavail * room.f_frsize - leave))
    return filler


def long_text(word: str) -> str:
    return "\n\n".join(f"## Part {n}\n\nSomething of {word}{n} is said." for n in range(2000))


def whole(home: Home) -> list[str]:
    return verify(home.catalog.get("handbook"), 64)


def test_a_full_disk_loses_nothing_and_work_goes_on_when_there_is_room(
    small: Home, caplog: pytest.LogCaptureFixture
) -> None:
    small.write("a.md", "an okapi")
    with small.following():
        kb = small.kb()
        eventually(lambda: states(kb) == {"a.md": "completed"})
        small.write("b.md", long_text("bongo"))
        # Room for the file's own row perhaps, and none for its passages.
        filler = fill(small.path.parent, leave=64 * 1024)
        eventually(lambda: "full" in caplog.text or "No space" in caplog.text, 20)
        assert states(kb).get("b.md") != "completed"
        assert files_of(kb, "okapi") == ["a.md"]
        filler.unlink()
        eventually(lambda: states(kb) == {"a.md": "completed", "b.md": "completed"}, 60)
        assert files_of(kb, "okapi") == ["a.md"]
        assert "b.md" in {h.filename for h in kb.search("bongo7", 5, mode="lexical").hits}
    assert whole(small) == []


def test_a_disk_without_any_room_at_the_start_keeps_readers_answering(
    small: Home, caplog: pytest.LogCaptureFixture
) -> None:
    small.write("a.md", "an okapi")
    small.sweep()
    kb = small.kb()
    small.write("b.md", "a bongo")
    filler = fill(small.path.parent, leave=0)
    with small.following():
        eventually(lambda: "full" in caplog.text or "No space" in caplog.text, 20)
        assert files_of(kb, "okapi") == ["a.md"]
        assert files_of(small.kb(), "okapi") == ["a.md"]
        filler.unlink()
        eventually(lambda: files_of(kb, "bongo") == ["b.md"], 60)
    assert whole(small) == []


@pytest.mark.parametrize("part", ["term", "idx", "fast", "meta.json", ".managed.json"])
@pytest.mark.parametrize("how", ["cut", "gone", "zeroed"])
def test_any_torn_file_of_the_lexical_index_is_mended_when_the_writer_is_back(
    home: Home, part: str, how: str
) -> None:
    home.write("a.md", "an okapi")
    home.write("b.md", "a bongo")
    home.sweep()
    folder = home.lexical
    torn = [file for file in folder.iterdir() if file.name.endswith(part)]
    assert torn
    for file in torn:
        content = file.read_bytes()
        match how:
            case "cut":
                file.write_bytes(content[: len(content) // 2])
            case "gone":
                file.unlink()
            case _:
                file.write_bytes(bytes(len(content)))
    home.write("c.md", "a tapir")
    (home.docs / "b.md").unlink()
    home.sweep()
    kb = home.kb()
    assert states(kb) == {"a.md": "completed", "c.md": "completed"}
    assert {w: files_of(kb, w) for w in ("okapi", "bongo", "tapir")} == {
        "okapi": ["a.md"],
        "bongo": [],
        "tapir": ["c.md"],
    }
    assert whole(home) == []


def test_an_index_torn_while_the_service_runs_is_mended_without_a_restart(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    home.write("a.md", "an okapi")
    with home.following(), caplog.at_level(logging.WARNING):
        kb = home.kb()
        eventually(lambda: files_of(kb, "okapi") == ["a.md"])
        for file in home.lexical.iterdir():
            if not file.name.startswith("."):
                file.unlink()
        home.write("a.md", "a tapir")
        home.write("b.md", "a bongo")
        eventually(lambda: states(kb) == {"a.md": "completed", "b.md": "completed"}, 30)
        again = home.kb()
        assert [files_of(again, word) for word in ("okapi", "tapir", "bongo")] == [
            [],
            ["a.md"],
            ["b.md"],
        ]
    assert "Traceback" not in caplog.text
    assert whole(home) == []


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.7, 0.95])
def test_a_log_that_lost_its_tail_costs_only_what_was_in_it(home: Home, kept: float) -> None:
    """As after a power cut on a disk that lied: the folder brings everything back."""
    home.write("a.md", "an okapi")
    home.sweep()
    database = home.catalog.get("handbook").folder / DATABASE
    log = database.with_name(f"{DATABASE}-wal")
    reader = home.kb()  # an open reader keeps the log from being folded away
    home.write("b.md", "a bongo")
    (home.docs / "a.md").write_text("a tapir")
    home.sweep()
    image, tail = database.read_bytes(), log.read_bytes()
    reader.close()
    home.opened.clear()
    assert len(tail) > 4096
    database.write_bytes(image)
    log.write_bytes(tail[: int(len(tail) * kept)])
    database.with_name(f"{DATABASE}-shm").unlink(missing_ok=True)
    home.sweep()
    kb = home.kb()
    assert states(kb) == {"a.md": "completed", "b.md": "completed"}
    assert {w: files_of(kb, w) for w in ("okapi", "bongo", "tapir")} == {
        "okapi": [],
        "bongo": ["b.md"],
        "tapir": ["a.md"],
    }
    assert whole(home) == []


def test_a_damaged_database_is_refused_by_name_and_left_as_it_is(home: Home) -> None:
    home.write("a.md", "an okapi " * 500)
    home.sweep()
    file = home.catalog.get("handbook").folder / DATABASE
    ruined = file.read_bytes()[:8192] + b"\xff" * (file.stat().st_size - 8192)
    file.write_bytes(ruined)
    home.write("b.md", "a bongo")
    with pytest.raises(StoreBroken, match=r"knowledge\.db is damaged"):
        home.sweep()
    assert file.read_bytes() == ruined
