"""The kernel gives no more watches, or no inotify at all: what can be watched is, the sweep finds
the rest, and that is said."""

import ctypes
import errno
import json
import logging
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from watchdog.observers import inotify_c
from watchdog.observers.inotify_c import InotifyFD

from ingest import watch
from kb.layout import DATABASE
from kb.store import Store
from kb.unwatched import lack, note, unwatched
from tests.ingest.homes import Home, eventually, files_of, states
from tests.ingest.test_cli import ROOT, environment, ingest

INSTANCES = (
    "fs.inotify.max_user_instances"
    f" (now {Path('/proc/sys/fs/inotify/max_user_instances').read_text().strip()})"
)


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
        monkeypatch.setattr(watch, "limit", lambda lack: self.most)


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
        eventually(lambda: f"all folders in {home.docs} are watched again" in caplog.text)
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
    note(store, {"/docs": 12}, "watches")
    store.close()
    said = ingest(tmp_path, "status", VADEMECUM_INGEST__SWEEP_SECONDS="30").stdout
    assert "12 folders in /docs cannot be watched live" in said
    assert "every 30 seconds" in said and "raise fs.inotify.max_user_watches (now " in said
    (told,) = json.loads(ingest(tmp_path, "status", "--json").stdout)["knowledge_bases"]
    assert (told["unwatched"], told["unwatched_lack"]) == ({"/docs": 12}, "watches")
    store = Store(file)
    note(store, {"/docs": 12}, "instances")
    store.close()
    assert f"raise {INSTANCES}" in ingest(tmp_path, "status").stdout


def test_what_an_older_store_noted_was_for_want_of_watches(home: Home) -> None:
    with closing(Store(home.catalog.get("handbook").folder / DATABASE)) as store:
        store.set_meta("unwatched", '{"/docs": 12}')
        assert (unwatched(store), lack(store)) == ({"/docs": 12}, "watches")


# -- no instance -----------------------------------------------------------------------------------


def test_without_an_instance_the_sweep_follows_until_there_is_one(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = inotify_c.inotify_init
    none = True

    def give() -> int:
        if not none:
            return real()
        ctypes.set_errno(errno.EMFILE)
        return -1

    monkeypatch.setattr(inotify_c, "inotify_init", give)
    monkeypatch.setattr(watch, "_AGAIN", 0.1)
    home.settings = home.settings.model_copy(update={"sweep_seconds": 0.2})
    home.write("deep/er/a.md", "a bongo")
    kb = home.kb()
    with caplog.at_level(logging.INFO), home.following():
        eventually(lambda: files_of(kb, "bongo") == ["deep/er/a.md"])
        eventually(lambda: noted(home).get(str(home.docs)) == 3)
        home.write("deep/er/a.md", "an okapi")
        eventually(lambda: files_of(kb, "okapi") == ["deep/er/a.md"])
        (home.docs / "new").mkdir()
        eventually(lambda: noted(home)[str(home.docs)] == 4)
        said = [r.message for r in caplog.records if f"{home.docs} cannot be" in r.message]
        assert said == [
            f"3 folders in {home.docs} cannot be watched live, as the kernel gives no more inotify"
            " instances: changes there are found by the sweep, every 0.2 seconds; to see them at"
            f" once, raise {INSTANCES}"
        ]
        none = False
        eventually(lambda: noted(home) == {})
        eventually(lambda: f"all folders in {home.docs} are watched again" in caplog.text)
    assert "Traceback" not in caplog.text


# What both kinds of tests below do: with a clock of their own.
CHILD = """
import os, resource, sys
from pathlib import Path
from ingest.watch import Watcher
docs, now = Path(sys.argv[1]), [0.0]
watcher = Watcher(lambda: None, lambda: now[0])
def handles(): return len(os.listdir("/proc/self/fd"))
def refused(lack):
    watcher.tend([docs])
    assert watcher.lack == lack, watcher.lack
    assert watcher.unwatched()[str(docs)] > 0  # no file left to look into it: at least itself
def given():
    watcher.tend([docs])
    assert watcher.unwatched() == {str(docs): 2}  # not before a minute has passed
    now[0] += 60
    watcher.tend([docs])
    assert watcher.unwatched() == {}
    (docs / "below" / "a.md").write_text("an okapi")
    assert watcher.events.get(timeout=10).path == "below/a.md"
    watcher.stop()
"""


def test_a_real_kernel_that_gives_no_instance(tmp_path: Path) -> None:
    """In a namespace of its own, as the limit is everybody's."""
    alone = ["unshare", "-Ur"]
    few = "/proc/sys/user/max_inotify_instances"
    if subprocess.run([*alone, "test", "-w", few], capture_output=True, check=False).returncode:
        pytest.skip("this kernel makes no namespace for us")
    script = f"""{CHILD}
limit = Path("{few}")
limit.write_text("0")
refused("instances")
limit.write_text("1")
given()
"""
    assert_runs([*alone, sys.executable, "-c", script], tmp_path)


def test_a_process_that_may_open_no_more_files(tmp_path: Path) -> None:
    """However many of the three files of an instance it may still open, it keeps none of them."""
    script = f"""{CHILD}
most = resource.getrlimit(resource.RLIMIT_NOFILE)
for more in range(3):
    before = handles() - 1  # looking takes one
    resource.setrlimit(resource.RLIMIT_NOFILE, (before + more, most[1]))
    refused("files")
    resource.setrlimit(resource.RLIMIT_NOFILE, most)
    assert handles() - 1 == before
    now[0] += 60
now[0] -= 60
given()
"""
    assert_runs([sys.executable, "-c", script], tmp_path)


def assert_runs(command: list[str], tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    (docs / "below").mkdir(parents=True)
    done = subprocess.run(
        [*command, str(docs)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


# -- the whole process -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "most", "said"),
    [
        (
            "watches",
            4,
            "3 folders in {} cannot be watched live, as the kernel gives no more watches",
        ),
        ("instances", 0, f"raise {INSTANCES}"),
    ],
)
def test_the_daemon_goes_on_under_a_real_kernel_s_limit(
    tmp_path: Path, limit: str, most: int, said: str
) -> None:
    """In a namespace of its own, as the limit is everybody's."""
    lower = f'echo {most} > /proc/sys/user/max_inotify_{limit} && exec "$@"'
    few = ["unshare", "-Ur", "sh", "-c", lower]
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
            env=environment(tmp_path, VADEMECUM_INGEST__SWEEP_SECONDS="0.5"),
            stderr=out,
        ) as process,
    ):
        try:
            eventually(lambda: said.format(tmp_path / "docs") in log.read_text(), 30)
            (tmp_path / "docs" / "a.md").write_text("an okapi")
            eventually(lambda: "completed a.md" in log.read_text(), 30)
            assert "Traceback" not in log.read_text()
        finally:
            process.kill()
