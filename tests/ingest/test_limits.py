"""More folders than the kernel has watches for: the rest is watched, and that is said."""

import errno
import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from watchdog.observers.inotify_c import InotifyFD

from ingest import watch
from kb.layout import DATABASE
from kb.store import Store
from kb.unwatched import note, unwatched
from tests.ingest.homes import Home, eventually, files_of, states
from tests.ingest.test_cli import ROOT, environment, ingest


class Kernel:
    """Gives `most` watches, and says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.most = 0
        self.given: set[Path] = set()
        real = InotifyFD.add_callback

        def add(inotify: InotifyFD, path: bytes, *arguments: Any) -> Any:
            place = Path(path.decode())
            if place not in self.given and len(self.given) >= self.most:
                raise OSError(errno.ENOSPC, "inotify watch limit reached")
            self.given.add(place)
            return real(inotify, path, *arguments)

        monkeypatch.setattr(InotifyFD, "add_callback", add)
        monkeypatch.setattr(watch, "limit", lambda: self.most)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


def noted(home: Home) -> dict[str, int]:
    store = Store(home.catalog.get("handbook").folder / DATABASE, readonly=True)
    try:
        return unwatched(store)
    finally:
        store.close()


def test_folders_beyond_the_limit_are_told_once_and_the_rest_is_watched(
    home: Home, kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    folders = [home.write(f"d{n}/a.md", "a bongo").parent for n in range(10)]
    (home.docs / ".git" / "objects").mkdir(parents=True)  # nobody misses these
    kernel.most = 6
    kb = home.kb()
    with caplog.at_level(logging.INFO), home.following():
        eventually(lambda: list(states(kb).values()) == ["completed"] * 10)
        missed = [folder for folder in folders if folder not in kernel.given]
        assert noted(home) == {str(home.docs): len(missed)}
        seen = next(folder for folder in (*folders, home.docs) if folder in kernel.given)
        (missed[0] / "b.md").write_text("an okapi")
        (seen / "c.md").write_text("a tapir")
        eventually(lambda: len(files_of(kb, "tapir")) == 1)
        time.sleep(1.5)  # longer than a worker waits before it looks again
        assert files_of(kb, "okapi") == []
        (home.docs / "new").mkdir()  # refused too, and sweeps
        eventually(lambda: noted(home) == {str(home.docs): len(missed) + 1})
        eventually(lambda: files_of(kb, "okapi") == [f"{missed[0].name}/b.md"])
        said = [r.message for r in caplog.records if "watched live" in r.message]
        assert said == [
            f"{len(missed)} folders in {home.docs} cannot be watched live, as the kernel gives no"
            " more watches: changes there are found by the sweep, every 3600 seconds; to see them"
            f" at once, raise fs.inotify.max_user_watches (now {watch_limit()})"
        ]
        kernel.most = 100
        eventually(lambda: noted(home) == {})
        assert f"all folders in {home.docs} are watched again" in caplog.text
        (missed[0] / "b.md").write_text("a gnu")
        eventually(lambda: files_of(kb, "gnu") == [f"{missed[0].name}/b.md"])


def watch_limit() -> int:
    return int(Path("/proc/sys/fs/inotify/max_user_watches").read_text())


def test_a_folder_that_takes_all_watches_leaves_one_for_uploads(
    home: Home, kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    home.write("deep/er/a.md", "a bongo")
    kernel.most = 1
    kb = home.kb()
    with home.following():
        eventually(lambda: files_of(kb, "bongo") == ["deep/er/a.md"])
        folder = home.catalog.uploads("handbook") / "file-abc123"
        folder.mkdir()
        (folder / "x.md").write_text("an uploaded manatee")
        eventually(lambda: files_of(kb, "manatee") == ["file-abc123/x.md"])
        eventually(lambda: noted(home)[str(home.docs)] == 3)
    assert f"3 folders in {home.docs} cannot be watched live" in caplog.text


def test_status_tells_what_is_not_watched_and_what_to_raise(tmp_path: Path) -> None:
    assert ingest(tmp_path, "sweep").returncode == 0
    file = next(tmp_path.glob("kb/handbook/knowledge.db"))
    store = Store(file)
    note(store, {"/docs": 12})
    store.close()
    said = ingest(tmp_path, "status", VADEMECUM_INGEST__SWEEP_SECONDS="30").stdout
    assert "12 folders in /docs cannot be watched live" in said
    assert "every 30 seconds" in said and "raise fs.inotify.max_user_watches (now " in said
    (told,) = json.loads(ingest(tmp_path, "status", "--json").stdout)["knowledge_bases"]
    assert told["unwatched"] == {"/docs": 12}


def test_a_real_kernel_that_gives_few_watches(tmp_path: Path) -> None:
    """In a namespace of its own, as the limit is everybody's."""
    few = ["unshare", "-Ur", "sh", "-c", 'echo 4 > /proc/sys/user/max_inotify_watches && exec "$@"']
    if subprocess.run([*few, "sh", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this kernel makes no namespace for us")
    for n in range(5):
        (tmp_path / "docs" / f"d{n}").mkdir(parents=True)
    log = tmp_path / "log"
    with (
        log.open("w") as out,
        subprocess.Popen(
            [*few, "sh", sys.executable, "-m", "ingest.cli", "run"],
            cwd=ROOT,
            env=environment(tmp_path),
            stderr=out,
        ) as process,
    ):
        try:
            eventually(lambda: "3 folders in" in log.read_text(), 30)
        finally:
            process.kill()
