"""`vademecum up` from its first line to its last, with a fake engine: the real processes."""

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.ports import PortTaken, await_port, free_port
from tests.app.commands import Vademecum
from tests.app.fake_engine import engine
from tests.app.supervise import eventually


@pytest.fixture
def vademecum(tmp_path: Path) -> Vademecum:
    return Vademecum(tmp_path / "home", tmp_path)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_up_answers_from_the_docs_folder_and_stops_when_told(
    vademecum: Vademecum, tmp_path: Path
) -> None:
    docs = tmp_path / "home" / "docs"
    docs.mkdir(parents=True)
    (docs / "hours.md").write_text("# Pharmacy\n\nThe pharmacy opens at 8:15 on weekdays.\n")
    port = str(free_port("127.0.0.1"))
    with engine("The pharmacy opens", " at 8:15 on weekdays [1]. Owls", " fly.") as url:
        settings = {"VADEMECUM_ENGINE__URL": url, "VADEMECUM_APP__EVIDENCE": "0"}
        running = vademecum.start("up", "--port", port, **settings)
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == f"ready http://127.0.0.1:{port}\n"
            here = {"VADEMECUM_APP__PORT": port}
            eventually(lambda: vademecum.json("kb", "stats", "handbook")["documents"] == 1)

            question = "When does the pharmacy open?"
            answer = vademecum.json("ask", question, **here)
            assert answer["answer"].startswith("The pharmacy opens")
            assert answer["refused"] is False
            assert answer["citations"][0]["filename"] == "hours.md"
            assert answer["knowledge"]["hits"]

            plain = vademecum("ask", question, "--kb", "handbook", **here)
            assert plain.returncode == 0, plain.stderr
            assert '\n[1] hours.md: "The pharmacy opens at 8:15 on weekdays."' in plain.stdout

            unknown = vademecum("ask", question, "--kb", "handbok", "--json", **here)
            assert (unknown.returncode, unknown.stdout) == (1, "")
            assert "did you mean handbook?" in unknown.stderr

            second = vademecum.process("up", "--port", "0", **settings)
            assert second.returncode == 1
            assert "in use by process" in second.stderr and str(running.pid) in second.stderr
        finally:
            running.send_signal(signal.SIGTERM)
            rest = running.communicate(timeout=60)[0]
    assert running.returncode == 0
    assert rest == ""
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/health/live", trust_env=False)
    assert {log.name for log in (tmp_path / "home" / "logs").iterdir()} == {
        "ingest.log",
        "server.log",
    }


def test_a_taken_port_is_named_and_nothing_is_started(
    vademecum: Vademecum, tmp_path: Path, taken: int
) -> None:
    done = vademecum.process("up", "--port", str(taken), VADEMECUM_ENGINE__URL="http://127.0.0.1:9")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"port {taken} is taken by another program" in done.stderr
    assert "--port" in done.stderr
    assert not (tmp_path / "home" / "logs").exists()


def test_engine_and_server_cannot_share_a_port(vademecum: Vademecum) -> None:
    done = vademecum("up", "--port", "8001")
    assert done.returncode == 3
    assert "8001" in done.stderr


def test_a_port_that_a_killed_run_is_just_leaving_is_waited_for(taken: int) -> None:
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    with pytest.raises(PortTaken, match=rf"port {taken} is taken .* --port"):
        await_port("127.0.0.1", taken, "--port", clock=lambda: now, sleep=sleep)
    assert 4 < now < 6

    other = socket.create_server(("127.0.0.1", 0))
    port = other.getsockname()[1]
    await_port("127.0.0.1", port, "--port", sleep=lambda seconds: other.close())


def test_a_host_that_is_not_ours_is_said() -> None:
    with pytest.raises(PortTaken, match=r"cannot listen on 192\.0\.2\.1:1234"):
        await_port("192.0.2.1", 1234, "--port")


def test_a_child_with_a_wrong_setting_ends_up_with_exit_code_3(vademecum: Vademecum) -> None:
    began = time.monotonic()
    with engine("x") as url:
        done = vademecum.process(
            "up", "--port", "0", VADEMECUM_ENGINE__URL=url, VADEMECUM_INGEST__SETTLE="1"
        )
    assert (done.returncode, done.stdout) == (3, "")
    assert "ingest: cannot run as it is configured (exit 3)" in done.stderr
    assert "did you mean settle_seconds?" in done.stderr
    assert time.monotonic() - began < 30


def test_a_wrong_key_of_the_servers_own_is_said_before_anything_starts(
    vademecum: Vademecum,
) -> None:
    done = vademecum("up", VADEMECUM_APP__PROT="1")
    assert (done.returncode, done.stdout) == (3, "")
    assert "did you mean port?" in done.stderr
    assert "Traceback" not in done.stderr
