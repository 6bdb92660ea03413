"""The ways in which files change that are not a plain save: each ends true, and deletes nothing
that is still there. Real files, and real inotify events."""

import errno
import logging
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from watchdog.observers.inotify_c import InotifyEvent, InotifyFD

from ingest import files, watch
from ingest.files import read, same_entry
from ingest.inotify import Inotify
from ingest.presence import Presence
from ingest.sweep import Sweeper
from kb import latency
from kb.layout import DATABASE
from kb.ledger import Ledger
from kb.store import Store
from tests.ingest.homes import Home, eventually, files_of, states

# Watchdog warns, in its own thread, when it meets a moved directory twice.
pytestmark = pytest.mark.filterwarnings("ignore:Callback with id:RuntimeWarning")


# -- being written ---------------------------------------------------------------------------------


def test_a_closed_file_is_taken_without_a_quiet_time(home: Home) -> None:
    home.settings = home.settings.model_copy(update={"settle_seconds": 3600})
    kb = home.kb()
    with home.following():
        home.write("a.md", "an okapi")
        eventually(lambda: files_of(kb, "okapi") == ["a.md"])
        home.write("draft", "a bongo").replace(home.docs / "a.md")
        eventually(lambda: files_of(kb, "bongo") == ["a.md"])


def test_a_file_that_is_still_open_is_taken_only_when_it_has_been_quiet(home: Home) -> None:
    home.settings = home.settings.model_copy(update={"settle_seconds": 3600})
    kb = home.kb()
    with home.following():
        with (home.docs / "a.md").open("w") as file:
            file.write("half a sen")
            file.flush()
            eventually(lambda: states(kb) == {"a.md": "in_progress"})
            home.write("b.md", "a bongo that came later")
            eventually(lambda: files_of(kb, "bongo") == ["b.md"])
            assert states(kb)["a.md"] == "in_progress"
            file.write("tence about an okapi")
        eventually(lambda: files_of(kb, "okapi") == ["a.md"])
        (hit,) = kb.search("okapi", 1).hits
        assert hit.chunk.text == "half a sentence about an okapi"


def test_a_file_that_grows_while_it_is_read_is_left_for_later(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = home.write("a.md", "half a sen")
    real = os.fstat
    looked: list[int] = []

    def growing(handle: int) -> os.stat_result:
        looked.append(handle)
        if len(looked) == 2:
            with file.open("a") as more:
                more.write("tence")
        return real(handle)

    monkeypatch.setattr(files.os, "fstat", growing)
    with pytest.raises(files.StillChanging):
        read(home.docs, "a.md", max_bytes=99, settle=0.1, now=time.time(), closed=True)


# -- names -----------------------------------------------------------------------------------------


def test_a_name_that_changes_its_case_is_a_rename(home: Home) -> None:
    kb = home.kb()
    with home.following():
        file = home.write("Leave Rules.md", "an okapi")
        eventually(lambda: states(kb) == {"Leave Rules.md": "completed"})
        (before,) = kb.ledger.all()
        file.rename(home.docs / "leave rules.md")
        eventually(lambda: states(kb) == {"leave rules.md": "completed"})
        assert kb.ledger.all()[0].id == before.id
        assert files_of(kb, "okapi") == ["leave rules.md"]


def test_names_in_two_cases_are_two_files_where_the_disk_tells_them_apart(home: Home) -> None:
    home.write("a.md", "an okapi")
    home.write("A.md", "another okapi")
    os.link(home.docs / "a.md", home.docs / "a.MD")
    home.sweep()
    assert sorted(states(home.kb())) == ["A.md", "a.MD", "a.md"]
    assert not same_entry(home.docs, "a.md", "A.md")
    assert not same_entry(home.docs, "a.md", "a.MD")


def test_a_disk_that_does_not_tell_cases_apart_has_one_file(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.write("Rule.md", "an okapi")
    home.sweep()
    (home.docs / "Rule.md").rename(home.docs / "RULE.md")
    real = Path.lstat
    monkeypatch.setattr(
        Path, "lstat", lambda path: real(path.with_name(path.name.replace("Rule", "RULE")))
    )
    home.sweep()
    assert states(home.kb()) == {"RULE.md": "completed"}


def test_identical_copies_are_each_known_and_each_forgotten(home: Home) -> None:
    kb = home.kb()
    with home.following():
        first = home.write("a.md", "the same okapi")
        copy = home.write("copies/b.md", "the same okapi")
        eventually(lambda: sorted(files_of(kb, "okapi")) == ["a.md", "copies/b.md"])
        first.unlink()
        eventually(lambda: files_of(kb, "okapi") == ["copies/b.md"])
        copy.unlink()
        eventually(lambda: files_of(kb, "okapi") == [])


def test_links_that_were_turned_away_from_the_folder_are_never_read(
    home: Home, tmp_path: Path
) -> None:
    kb = home.kb()
    (tmp_path / "secret.md").write_text("the secret narwhal")
    with home.following():
        home.write("plain.md", "a public narwhal")
        link = home.docs / "link.md"
        link.symlink_to("plain.md")
        eventually(lambda: sorted(files_of(kb, "narwhal")) == ["link.md", "plain.md"])
        (home.docs / "turned").symlink_to(tmp_path / "secret.md")
        (home.docs / "turned").rename(link)
        eventually(lambda: sorted(states(kb)) == ["plain.md"])
        assert files_of(kb, "secret") == []


# -- permissions -----------------------------------------------------------------------------------


def test_a_file_without_permission_is_named_and_taken_when_it_is_given(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.settings = home.settings.model_copy(update={"sweep_seconds": 0.2})
    kb = home.kb()
    real = os.open
    locked = True

    def guarded(path: Path, flags: int, mode: int = 0o777) -> int:
        # Permissions do not bind the superuser, whom tests may run as.
        if locked and Path(path).name == "locked.md":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, flags, mode)

    monkeypatch.setattr(files.os, "open", guarded)
    with home.following():
        home.write("locked.md", "an okapi")
        home.write("other.md", "a bongo")
        eventually(lambda: files_of(kb, "bongo") == ["other.md"])
        eventually(lambda: states(kb)["locked.md"] == "failed")
        found = kb.ledger.find(str(home.docs), "locked.md")
        assert found is not None and found.error_message is not None
        assert "permission denied" in found.error_message
        locked = False  # which makes no event that is listened to: sweeps try again
        eventually(lambda: files_of(kb, "okapi") == ["locked.md"])


# -- the folder goes away --------------------------------------------------------------------------


def test_work_on_a_folder_that_goes_away_waits_until_it_is_back(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    home.write("a.md", "an okapi")
    home.sweep()
    store = Store(home.catalog.get("handbook").folder / DATABASE)
    ledger = Ledger(store)
    ledger.changed(str(home.docs), "a.md")  # an edit that nobody has read yet
    away = home.docs.rename(home.path / "unmounted")
    worker = home.worker()
    thread = threading.Thread(target=worker.complete)
    with caplog.at_level(logging.WARNING):
        thread.start()
        thread.join(20)
    assert not thread.is_alive()
    assert files_of(home.kb(), "okapi") == ["a.md"]
    assert "is missing; what is known of it is kept until it is back" in caplog.text
    away.rename(home.docs)
    ledger.hasten(0)
    home.sweep()
    assert states(home.kb()) == {"a.md": "completed"}
    store.close()


def test_a_mount_below_the_folder_that_vanishes_deletes_nothing(home: Home) -> None:
    home.write("disk/a.md", "an okapi")
    home.write("b.md", "a bongo")
    home.sweep()
    store = Store(home.catalog.get("handbook").folder / DATABASE)
    store.set_meta(f"device {home.docs / 'disk'}", "another")  # as if a disk had been there
    (home.docs / "disk" / "a.md").unlink()
    (home.docs / "b.md").unlink()
    home.sweep()
    assert files_of(home.kb(), "okapi") == ["disk/a.md"]
    assert files_of(home.kb(), "bongo") == []
    # Events are not believed either.
    sweeper = Sweeper(Ledger(store), Presence(store))
    assert sweeper.sweep(home.docs) == []
    # Once it holds something, it is.
    home.write("disk/c.md", "a tapir")
    home.sweep()
    assert set(states(home.kb())) == {"disk/c.md"}
    store.close()


def test_a_disk_that_is_gone_for_good_is_forgotten_when_its_folder_is_used_again(
    home: Home,
) -> None:
    home.write("disk/a.md", "an okapi")
    home.sweep()
    store = Store(home.catalog.get("handbook").folder / DATABASE)
    store.set_meta(f"device {home.docs / 'disk'}", "another")  # as if a disk had been there
    shutil.rmtree(home.docs / "disk")
    home.sweep()
    assert set(states(home.kb())) == {"disk/a.md"}
    home.write("disk/gone.md", "nothing will ever be mounted here again")
    home.sweep()
    assert set(states(home.kb())) == {"disk/gone.md"}
    shutil.rmtree(home.docs / "disk")
    home.sweep()
    assert states(home.kb()) == {}
    assert store.meta(f"device {home.docs / 'disk'}") is None
    store.close()


def mount(place: Path, folder: Path | None = None) -> None:
    """A disk of its own there, or a folder of the same disk."""
    what = ["-t", "tmpfs", "-o", "size=1m", "tmpfs"] if folder is None else ["--bind", str(folder)]
    command = ["mount", *what, str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")


def unmount(place: Path, *, check: bool = True) -> bool:
    done = subprocess.run(["umount", str(place)], capture_output=True, check=check)
    return not done.returncode


@pytest.fixture
def disk(home: Home) -> Iterator[Path]:
    """A place for a disk below the watched folder."""
    place = home.docs / "a disk"
    place.mkdir()
    yield place
    while unmount(place, check=False):  # a bound folder does not show that it is one
        pass


@pytest.fixture
def mounted(disk: Path) -> Path:
    """A disk of its own below the watched folder."""
    mount(disk)
    return disk


@pytest.fixture
def source(home: Home) -> Path:
    """A folder elsewhere on the same disk; what is bound shows it."""
    place = home.path / "else where"
    place.mkdir()
    return place


@pytest.mark.parametrize("bound", [False, True])
def test_a_real_disk_that_is_unmounted_takes_nothing_along(
    home: Home, disk: Path, source: Path, bound: bool
) -> None:
    mounted = disk
    mount(disk, source if bound else None)
    home.settings = home.settings.model_copy(update={"sweep_seconds": 0.1})
    kb = home.kb()
    with home.following():
        (mounted / "a.md").write_text("an okapi")
        home.write("b.md", "a bongo")
        eventually(lambda: states(kb) == {"a disk/a.md": "completed", "b.md": "completed"})
        unmount(mounted)
        (home.docs / "b.md").unlink()
        eventually(lambda: states(kb) == {"a disk/a.md": "completed"})
        time.sleep(0.5)  # several sweeps
        assert files_of(kb, "okapi") == ["a disk/a.md"]


def test_a_bound_folder_that_vanishes_is_waited_for(
    home: Home, disk: Path, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (source / "a.md").write_text("an okapi")
    (source / "b.md").write_text("a bongo")
    mount(disk, source)
    home.sweep()
    unmount(disk)
    (disk / ".gitkeep").touch()
    (source / "a.md").unlink()
    home.sweep()
    assert set(states(home.kb())) == {"a disk/a.md", "a disk/b.md"}
    assert caplog.text.count(f"{disk} is missing") == 1
    mount(disk, source)  # as another mount than before
    home.sweep()
    assert set(states(home.kb())) == {"a disk/b.md"}
    (source / "b.md").unlink()  # empty, but the same as ever
    home.sweep()
    assert states(home.kb()) == {}


def test_a_watched_folder_that_is_bound_itself_is_waited_for(home: Home, source: Path) -> None:
    (source / "a.md").write_text("an okapi")
    mount(home.docs, source)
    try:
        home.sweep()
    finally:
        unmount(home.docs)
    home.sweep()
    assert set(states(home.kb())) == {"a.md"}
    home.write("b.md", "a bongo")  # nothing will be mounted here again
    home.sweep()
    assert set(states(home.kb())) == {"b.md"}


def test_a_watched_folder_in_a_bound_one_is_waited_for(home: Home, source: Path) -> None:
    """What was below the mount is there when it vanishes, empty, and has no mount of its own."""
    (source / "docs").mkdir()
    (source / "docs" / "a.md").write_text("an okapi")
    inner = home.docs / "docs"
    inner.mkdir()
    mount(home.docs, source)
    with closing(Store(home.catalog.get("handbook").folder / DATABASE)) as store:
        try:
            assert Presence(store).is_there(inner)
        finally:
            unmount(home.docs)
        assert not Presence(store).is_there(inner)


def test_a_bound_folder_that_is_gone_for_good_is_forgotten_when_its_folder_is_used_again(
    home: Home, disk: Path, source: Path
) -> None:
    (source / "a.md").write_text("an okapi")
    mount(disk, source)
    home.sweep()
    unmount(disk)
    home.write("a disk/b.md", "nothing will ever be mounted here again")
    home.sweep()
    assert set(states(home.kb())) == {"a disk/b.md"}
    shutil.rmtree(disk)
    home.sweep()
    assert states(home.kb()) == {}


def test_what_an_older_store_knows_of_a_place_is_its_device(home: Home) -> None:
    file = home.write("a.md", "an okapi")
    home.sweep()
    key, device = f"device {home.docs}", str(home.docs.stat().st_dev)
    with closing(Store(home.catalog.get("handbook").folder / DATABASE)) as store:
        store.set_meta(key, device)
        file.unlink()  # nothing else is there
        home.sweep()
        assert states(home.kb()) == {}
        assert (store.meta(key) or "").startswith(f"{device} /")


@pytest.mark.parametrize("bound", [False, True])
def test_a_disk_that_is_mounted_later_is_found_and_watched(
    home: Home, disk: Path, source: Path, bound: bool
) -> None:
    """The sweep is an hour away, so whatever is seen was told by events."""
    kb = home.kb()
    with home.following():
        home.write("b.md", "a bongo")
        eventually(lambda: files_of(kb, "bongo") == ["b.md"])
        mount(disk, source if bound else None)
        (disk / "deep").mkdir()
        (disk / "deep" / "a.md").write_text("an okapi")
        eventually(lambda: files_of(kb, "okapi") == ["a disk/deep/a.md"])
        (disk / "deep" / "a.md").write_text("a tapir")
        eventually(lambda: files_of(kb, "tapir") == ["a disk/deep/a.md"])
        (disk / "deep" / "a.md").unlink()
        eventually(lambda: states(kb) == {"b.md": "completed"})


def test_a_disk_that_comes_back_at_once_is_watched_anew(home: Home, mounted: Path) -> None:
    """It has the numbers that it had; nobody looked while it was away."""
    kb = home.kb()
    with home.following():
        (mounted / "a.md").write_text("an okapi")
        eventually(lambda: files_of(kb, "okapi") == ["a disk/a.md"])
        unmount(mounted)
        mount(mounted)
        (mounted / "a.md").write_text("a tapir")
        eventually(lambda: files_of(kb, "tapir") == ["a disk/a.md"])
        (mounted / "a.md").write_text("a gnu")
        eventually(lambda: files_of(kb, "gnu") == ["a disk/a.md"])


def test_what_a_disk_left_behind_is_watched(home: Home, mounted: Path) -> None:
    kb = home.kb()
    with home.following():
        (mounted / "a.md").write_text("an okapi")
        eventually(lambda: files_of(kb, "okapi") == ["a disk/a.md"])
        unmount(mounted)
        time.sleep(1.5)  # longer than a worker waits before it looks again
        home.write("a disk/b.md", "a tapir")
        eventually(lambda: files_of(kb, "tapir") == ["a disk/b.md"])


def test_a_folder_that_is_deleted_and_made_anew_is_watched_anew(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Many disks give the new folder the old one's number; here all do.
    monkeypatch.setattr(watch, "_identity", lambda folder: (1, 1) if folder.is_dir() else None)
    kb = home.kb()
    with home.following():
        home.write("a.md", "an okapi")
        eventually(lambda: files_of(kb, "okapi") == ["a.md"])
        shutil.rmtree(home.docs)
        home.docs.mkdir()
        home.write("b.md", "a bongo")
        eventually(lambda: states(kb) == {"b.md": "completed"})
        home.write("b.md", "a tapir")  # no sweep comes to help
        eventually(lambda: files_of(kb, "tapir") == ["b.md"])


def test_a_folder_that_cannot_be_watched_is_said_once_and_tried_again_now_and_then(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now, tried = [1000.0], []
    real = InotifyFD.add_callback

    def full(self: InotifyFD, *arguments: Any) -> Any:
        tried.append(now[0])
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(InotifyFD, "add_callback", full)
    watcher = watch.Watcher(lambda: None, lambda: now[0])
    try:
        watcher.tend([home.docs])
        for _ in range(130):
            now[0] += 1
            watcher.tend([home.docs])
        assert tried == [1000.0, 1060.0, 1120.0]
        assert caplog.text.count("cannot watch") == 1
        monkeypatch.setattr(InotifyFD, "add_callback", real)
        now[0] += 60
        watcher.tend([home.docs])
        home.write("a.md", "an okapi")
        assert watcher.events.get(timeout=5).path == "a.md"
    finally:
        watcher.stop()


# -- clocks and lost events ------------------------------------------------------------------------


def test_an_event_that_comes_while_a_folder_is_unwatched_is_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    follower = Inotify(lambda event: None, lambda: None)
    follower.watch(tmp_path)
    (emitter,) = follower._observer.emitters
    follower.stop()
    emitter.queue_events(1)
    assert not caplog.records


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_clock_that_jumps_keeps_no_file_waiting(
    home: Home, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    kb = home.kb()
    home.settings = home.settings.model_copy(update={"sweep_seconds": 0.2})
    real = time.time
    with home.following():
        home.write("a.md", "an okapi")
        eventually(lambda: files_of(kb, "okapi") == ["a.md"])
        monkeypatch.setattr(time, "time", lambda: real() + 3600 * hours)
        home.write("a.md", "a bongo")
        eventually(lambda: files_of(kb, "bongo") == ["a.md"])
        # Sweeps go on too: this one makes no event.
        outside = home.path / "outside.md"
        outside.write_text("a tapir")
        file = home.docs / "a.md"
        stamp = file.stat().st_mtime_ns
        os.utime(outside, ns=(stamp - 10**12, stamp - 10**12))
        outside.replace(home.docs / "b.md")
        eventually(lambda: files_of(kb, "tapir") == ["b.md"])
    assert all(0 <= h.seconds < 60 for h in latency.histograms(kb.store))


def test_events_that_the_kernel_drops_are_made_good_by_a_sweep(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if most > 100_000:
        pytest.skip(f"this kernel keeps {most} events")
    reads = threading.Event()
    reads.set()
    real = InotifyFD.read_events

    def slow(self: InotifyFD) -> list[InotifyEvent]:
        assert reads.wait(60)
        return real(self)

    monkeypatch.setattr(InotifyFD, "read_events", slow)
    kb = home.kb()
    with home.following():
        gone = home.write("gone.md", "an ibex")
        home.write("other.md", "a bongo")
        eventually(lambda: len(files_of(kb, "ibex")) == 1)
        eventually(lambda: sorted(states(kb).values()) == ["completed"] * 2)
        reads.clear()
        time.sleep(0.1)
        # Two files in turn, as the kernel folds like events that follow each other; twice as many
        # as it keeps, as one last read may be under way, and take as many as its buffer holds.
        for _ in range(most):
            for name in ("gone.md", "other.md"):
                os.close(os.open(home.docs / name, os.O_WRONLY))
        gone.unlink()
        home.write("new/lost.md", "an okapi")
        reads.set()
        eventually(lambda: files_of(kb, "okapi") == ["new/lost.md"], 30)
        eventually(lambda: files_of(kb, "ibex") == [], 30)
        home.write("new/later.md", "watched again: a tapir")
        eventually(lambda: files_of(kb, "tapir") == ["new/later.md"], 30)
    assert "overflow" in caplog.text


# -- how long it took ------------------------------------------------------------------------------


def test_a_file_whose_event_was_lost_counts_from_its_change(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.settings = home.settings.model_copy(update={"sweep_seconds": 1.0})
    monkeypatch.setattr(watch.Watcher, "put", lambda self, event: None)
    kb = home.kb()
    old = home.write("old.md", "an okapi")
    os.utime(old, (1, 1))
    with home.following():
        home.write("a.md", "a bongo")
        eventually(lambda: states(kb) == {"a.md": "completed", "old.md": "completed"})
        before = sum(h.seconds for h in latency.histograms(kb.store))
        home.write("b.md", "a tapir")  # just after a sweep
        os.utime(old)
        written = time.time()
        eventually(lambda: states(kb).get("b.md") == "completed")
        waited = time.time() - written
    taken = sum(h.seconds for h in latency.histograms(kb.store)) - before
    assert before < 60 and taken > waited


def test_what_became_searchable_and_what_went_is_counted(home: Home) -> None:
    kb = home.kb()
    with home.following():
        file = home.write("a.md", "an okapi")
        eventually(lambda: states(kb) == {"a.md": "completed"})
        file.unlink()
        eventually(lambda: states(kb) == {})
    noted = {(h.what, h.bulk): sum(n for _, n in h.counts) for h in latency.histograms(kb.store)}
    assert noted == {("searchable", False): 1, ("gone", False): 1}
