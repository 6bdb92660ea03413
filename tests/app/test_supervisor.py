"""Children are kept running, and nothing of them is left behind. Real processes, real signals."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.child import KEPT_LOGS, Child, rotated
from app.children import ChildSpec
from app.supervisor import Supervisor
from app.world import on_this_machine
from tests.app.supervise import QUICK, SLEEP, Pids, eventually, family, is_alive, python, quick

ROOT = Path(__file__).parents[2]


class Run:
    """A supervisor in a thread, what it said, and how it ended."""

    def __init__(self, folder: Path, specs: list[ChildSpec]) -> None:
        self.said: list[str] = []
        self.code: int | None = None
        self.stop = threading.Event()
        world = quick(on_this_machine(folder / "logs", self.said.append))
        self._supervisor = Supervisor(
            specs, world, ready_url="", on_ready=lambda: None, backoff=QUICK
        )
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        self.code = self._supervisor.run(self.stop.is_set)


@contextmanager
def supervised(folder: Path, *specs: ChildSpec) -> Iterator[Run]:
    run = Run(folder, list(specs))
    run.thread.start()
    try:
        yield run
    finally:
        run.stop.set()
        run.thread.join(30)
    assert not run.thread.is_alive()


def test_a_killed_child_is_started_again(tmp_path: Path) -> None:
    pids = Pids(tmp_path, "one")
    with supervised(tmp_path, python("one", pids.tell + SLEEP)) as run:
        eventually(lambda: len(pids.all()) == 1)
        os.kill(pids.all()[0], signal.SIGKILL)
        eventually(lambda: len(pids.alive()) == 1 and len(pids.all()) == 2)
        assert any("one: ended (exit 137)" in line for line in run.said)
    assert run.code == 0
    assert pids.alive() == []


def test_a_child_that_ends_without_an_error_is_started_again_too(tmp_path: Path) -> None:
    pids = Pids(tmp_path, "one")
    with supervised(tmp_path, python("one", pids.tell)):
        eventually(lambda: len(pids.all()) >= 3)


def test_a_badly_configured_child_stops_all_and_its_words_are_shown(tmp_path: Path) -> None:
    pids = Pids(tmp_path, "good")
    bad = "import sys, time; time.sleep(0.3); sys.stderr.write('[app] prot: unknown key'); sys.exit(3)"  # noqa: E501
    with supervised(tmp_path, python("good", pids.tell + SLEEP), python("bad", bad)) as run:
        run.thread.join(20)
        assert run.code == 3
    assert "bad: cannot run as it is configured" in "".join(run.said)
    assert "[app] prot: unknown key" in "".join(run.said)
    assert len(pids.all()) == 1
    assert pids.alive() == []


def test_a_command_that_does_not_exist_is_said(tmp_path: Path) -> None:
    with supervised(tmp_path, ChildSpec("ghost", ("/no/such/program",))) as run:
        eventually(lambda: any("cannot be started" in line for line in run.said))


def test_stopping_ends_grandchildren_whatever_they_do(tmp_path: Path) -> None:
    spec, child, grandchildren = family(tmp_path)
    with supervised(tmp_path, spec):
        eventually(lambda: len(grandchildren.alive()) == 2)
    assert child.alive() == grandchildren.alive() == []


def test_grandchildren_do_not_outlive_a_child_that_was_killed(tmp_path: Path) -> None:
    spec, child, grandchildren = family(tmp_path)
    with supervised(tmp_path, spec):
        eventually(lambda: len(grandchildren.all()) == 2)
        os.kill(child.all()[0], signal.SIGKILL)
        eventually(lambda: len(grandchildren.all()) == 4)
        assert grandchildren.alive() == grandchildren.all()[2:]


def test_a_killed_supervisor_leaves_nobody_behind(tmp_path: Path) -> None:
    supervisor = _supervisor_process(tmp_path)
    _, child, grandchildren = family(tmp_path)
    eventually(lambda: len(grandchildren.alive()) == 2)
    supervisor.kill()
    supervisor.wait(10)
    eventually(lambda: not child.alive() and not grandchildren.alive())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_whole_tree_and_the_exit_code_is_0(
    tmp_path: Path, number: signal.Signals
) -> None:
    supervisor = _supervisor_process(tmp_path)
    _, child, grandchildren = family(tmp_path)
    eventually(lambda: len(grandchildren.alive()) == 2)
    supervisor.send_signal(number)
    assert supervisor.wait(20) == 0
    assert child.alive() == grandchildren.alive() == []


def _supervisor_process(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.app.supervise", str(folder)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )


def test_a_killed_leash_takes_its_command_and_its_group_with_it(tmp_path: Path) -> None:
    pids = Pids(tmp_path, "one")
    child = Child(python("one", pids.tell + SLEEP), tmp_path)
    eventually(lambda: len(pids.alive()) == 1)
    os.kill(child.pid, signal.SIGKILL)
    eventually(lambda: child.exit_code() == 137)
    eventually(lambda: not pids.alive())


def test_killing_takes_everything_at_once(tmp_path: Path) -> None:
    spec, told, grandchildren = family(tmp_path)
    child = Child(spec, tmp_path)
    eventually(lambda: len(grandchildren.alive()) == 2)
    child.kill()
    assert told.alive() == grandchildren.alive() == []
    assert not is_alive(child.pid)


def test_a_childs_output_is_in_its_log_and_earlier_runs_are_not_its_last_lines(
    tmp_path: Path,
) -> None:
    for word in ("first", "second"):
        child = Child(python("one", f"print('{word}')"), tmp_path)
        eventually(lambda child=child: child.exit_code() is not None)  # type: ignore[misc]
    assert (tmp_path / "one.log").read_text() == "first\nsecond\n"
    assert child.last_lines(5) == ["second"]


def test_a_module_in_the_folder_where_it_was_started_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("print('a document ran')")
    monkeypatch.chdir(tmp_path)
    child = Child(ChildSpec("one", (sys.executable, "-m", "json.tool", "--help")), tmp_path)
    eventually(lambda: child.exit_code() is not None)
    assert "a document ran" not in (tmp_path / "one.log").read_text()


def test_a_large_log_is_put_aside_and_only_a_few_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.child.MAX_LOG_BYTES", 3)
    for n in range(KEPT_LOGS + 2):
        rotated(tmp_path, "one").write_text(f"log {n}")
    assert (tmp_path / "one.log").read_text() == f"log {KEPT_LOGS + 1}"
    assert (tmp_path / "one.log.1").read_text() == f"log {KEPT_LOGS}"
    assert len(list(tmp_path.iterdir())) == KEPT_LOGS + 1
