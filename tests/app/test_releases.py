"""Promotion and rollback with fake engines: what is served changes only when all went well."""

import asyncio
import json
import shutil
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from httpx import Response

from app.engine import Delta, FakeEngine, Message
from kb import release
from kb.errors import EngineDown
from tests.app.serving import ANSWER, HOURS, Home, error
from tests.app.supervise import eventually
from tests.kb.releases import manifest, store

ONE = "One says that the pharmacy opens at 8:15 on weekdays."
TWO = "Two says that the pharmacy opens at 8:15 on weekdays."


class Held(FakeEngine):
    """Comes up, and answers what is no probe, only when the test lets it."""

    def __init__(self, reply: str, *, name: str = "fake") -> None:
        super().__init__(reply, name=name)
        self.comes = self.answers = True

    async def ready(self) -> bool:
        while not self.comes:
            await asyncio.sleep(0.01)
        return True

    @contextmanager
    def held(self) -> Iterator[None]:
        """A test that fails lets go too."""
        self.comes = self.answers = False
        try:
            yield
        finally:
            self.comes = self.answers = True

    async def stream(
        self, messages: Sequence[Message], options: Mapping[str, Any]
    ) -> AsyncGenerator[Delta, None]:
        async for delta in super().stream(messages, options):
            yield delta
            while options["max_tokens"] > 50 and not self.answers:
                await asyncio.sleep(0.01)


class Slow(FakeEngine):
    """Takes its time for every word of what is no probe."""

    async def stream(
        self, messages: Sequence[Message], options: Mapping[str, Any]
    ) -> AsyncGenerator[Delta, None]:
        async for delta in super().stream(messages, options):
            if options["max_tokens"] > 50:
                await asyncio.sleep(0.05)
            yield delta


class Mute(FakeEngine):
    """Comes up, and cannot generate."""

    async def stream(
        self, messages: Sequence[Message], options: Mapping[str, Any]
    ) -> AsyncGenerator[Delta, None]:
        raise EngineDown("the language model broke off")
        yield Delta()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A server with releases r1 and r2 beside the base."""
    engines = {
        "r1": Held(ONE, name="r1"),
        "r2": FakeEngine(TWO, name="r2"),
        "slow": Slow("word " * 40, name="slow"),
        "same": FakeEngine(ANSWER, name="same"),
        "down": FakeEngine(TWO, name="down", up=False),
        "empty": FakeEngine("", name="empty"),
        "mute": Mute(TWO, name="mute"),
    }
    one = Home(tmp_path, Held(ANSWER), engines=engines)
    one.write("hours.md", HOURS)
    for name in engines:
        store(tmp_path, name, embedder=one.embedder.name)
    with one.client:  # one event loop for all requests
        yield one
    one.bases.close()


@contextmanager
def restarted(home: Home, **seconds: float) -> Iterator[None]:
    """The server starts again; the engines went on."""
    home.releases = home.resumed(**seconds)
    home.client = type(home.client)(home.app(), base_url="http://127.0.0.1:8000")
    with home.client:
        yield


def promote(home: Home, name: str, **body: Any) -> Response:
    return home.client.post(f"/admin/releases/{name}/promote", json=body or None)


def rollback(home: Home) -> Response:
    return home.client.post("/admin/releases/rollback")


def states(home: Home) -> dict[str, str]:
    rows = home.client.get("/admin/releases").json()["data"]
    return {row["id"]: row["state"] for row in rows if row["state"] != "stored"}


def says(home: Home, model: str = "vademecum") -> tuple[str, str]:
    """The first word of an answer, and the release that gave it."""
    body = home.ask(model=model).json()
    return body["choices"][0]["message"]["content"].split()[0], body["knowledge"]["release"]


def models(home: Home) -> list[str]:
    return [one["id"] for one in home.client.get("/v1/models").json()["data"]]


def test_a_promoted_release_answers_and_the_base_is_kept(home: Home) -> None:
    assert says(home) == ("The", "fake")
    done = promote(home, "r1").json()
    assert done["current"] == "r1"
    assert says(home) == ("One", "r1")
    assert states(home) == {"r1": "current", "base": "kept"}
    assert release.succession(home.path) == ["r1", "base"]


def test_every_loaded_release_can_be_named(home: Home) -> None:
    promote(home, "r1")
    assert models(home) == ["vademecum", "fake", "r1"]
    assert says(home, "fake") == ("The", "fake")
    assert says(home, "r1") == ("One", "r1")
    error(home.ask(model="r2"), 404, "model_not_found")


def test_a_release_is_served_as_its_manifest_asks(home: Home) -> None:
    store(home.path, "r3", embedder=home.embedder.name, serving={
        "evidence": 0.0, "context_tokens": 700, "quotes": 2,
    })  # fmt: skip
    home.launcher._engines["r3"] = FakeEngine("Three.", name="r3")
    promote(home, "r3")
    body = home.ask().json()
    said = body["choices"][0]["message"]["content"]
    assert said.startswith("Three.\n\n“The pharmacy opens at 8:15")


def test_rollback_serves_what_was_served_before_at_once(home: Home) -> None:
    promote(home, "r1")
    began = time.monotonic()
    assert rollback(home).json()["current"] == "base"
    assert time.monotonic() - began < 1
    assert says(home) == ("The", "fake")
    assert states(home) == {"base": "current", "r1": "kept"}
    error(rollback(home), 409, "not_promotable")
    assert home.launcher.started == ["r1"]


def test_rollbacks_go_back_one_by_one_also_to_what_is_no_longer_kept(home: Home) -> None:
    promote(home, "r1")
    promote(home, "r2")
    assert states(home) == {"r2": "current", "r1": "kept"}
    assert home.launcher.stopped == ["base"]
    rollback(home)
    assert says(home) == ("One", "r1")
    rollback(home)  # the base is started again
    assert says(home) == ("The", "fake")
    assert home.launcher.started == ["r1", "r2", "base"]


def test_a_rollback_does_not_serve_what_a_promotion_would_refuse(home: Home) -> None:
    promote(home, "r1")
    promote(home, "r2")
    home.launcher.running.discard("r1")
    home.kb = home.kb.model_copy(update={"embedder": "org/other"})  # after a restart
    home.releases = home.resumed()
    home.client = type(home.client)(home.app(), base_url="http://127.0.0.1:8000")
    with home.client:
        assert states(home) == {"base": "current"}
        told = error(rollback(home), 409, "not_promotable")["message"]
        assert "r1 cannot be served here" in told and "org/other" in told
        assert states(home) == {"base": "current"}


def test_what_is_kept_too_long_is_stopped_and_can_still_be_rolled_back_to(tmp_path: Path) -> None:
    engines = {"r1": FakeEngine(ONE, name="r1")}
    home = Home(tmp_path, FakeEngine(ANSWER), engines=engines)
    home.write("hours.md", HOURS)
    store(tmp_path, "r1", embedder=home.embedder.name)
    home.releases = home.resumed(keep_seconds=0.05)
    home.client = type(home.client)(home.app(), base_url="http://127.0.0.1:8000")
    with home.client:
        promote(home, "r1")
        time.sleep(0.5)
        assert states(home) == {"r1": "current"} and home.launcher.stopped == ["base"]
        assert rollback(home).json()["current"] == "base"
        assert says(home) == ("The", "fake")
    home.bases.close()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("same", "answers exactly as the base"),
        ("down", "did not answer"),
        ("empty", "empty answers"),
        ("mute", "broke off"),
    ],
)
def test_a_release_that_fails_its_probe_is_stopped_and_changes_nothing(
    home: Home, name: str, why: str
) -> None:
    told = error(promote(home, name), 503, "promotion_failed")
    assert why in told["message"]
    assert says(home) == ("The", "fake") and states(home) == {"base": "current"}
    assert home.launcher.running == {"base"}
    assert release.current(home.path) == "base"


def test_a_failed_gate_is_refused_unless_forced(home: Home) -> None:
    store(
        home.path, "r3", embedder=home.embedder.name, gate={"passed": False, "why": "forgot maths"}
    )
    home.launcher._engines["r3"] = FakeEngine("Three.", name="r3")
    assert "forgot maths" in error(promote(home, "r3"), 409, "gate_closed")["message"]
    assert promote(home, "r3", force=True).json()["current"] == "r3"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"prompt_version": 0}, "prompt version 0"),
        ({"base": {"name": "org/other"}}, "its base is org/other"),
        ({"embedder": "other"}, "embedder other"),
        ({"chunker": {"tokens": 99, "version": 2}}, "99 tokens"),
    ],
)
def test_a_release_that_does_not_fit_is_refused_and_said_why(
    home: Home, said: dict[str, Any], why: str
) -> None:
    store(home.path, "r3", **{"embedder": home.embedder.name} | said)
    assert why in error(promote(home, "r3", force=True), 409, "not_promotable")["message"]
    assert home.launcher.started == []


def test_a_damaged_release_is_refused_naming_the_file_and_no_path(home: Home) -> None:
    weights = home.path / "releases" / "r1" / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(b"other")
    told = error(promote(home, "r1"), 409, "not_promotable")
    assert "adapter/adapter_model.safetensors" in told["message"]
    assert str(home.path) not in told["message"]
    (home.path / "releases" / "r2" / "release.json").write_text("{")
    rows = {row["id"]: row for row in home.client.get("/admin/releases").json()["data"]}
    assert "release.json" in rows["r2"]["problem"] and rows["same"]["gate"]["passed"]


@pytest.mark.parametrize("name", ["r9", "current", "..%2f..%2fdocs-handbook", "R1"])
def test_a_release_that_does_not_exist_is_404(home: Home, name: str) -> None:
    assert promote(home, name).status_code == 404


def test_no_answer_is_lost_or_mixed_while_releases_change(home: Home) -> None:
    """Requests under way end on the engine that began them, while new ones go to the new one."""
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(home.ask, stream=False) for _ in range(4)]
        promoting = pool.submit(promote, home, "r1")
        while not promoting.done():
            asked.append(pool.submit(home.ask))
            time.sleep(0.05)
        asked += [pool.submit(home.ask) for _ in range(4)]
        assert promote(home, "r2").status_code == 200  # which stops the base
        replies = [one.result() for one in asked]
    assert {reply.status_code for reply in replies} == {200}
    told = {
        (body["knowledge"]["release"], body["choices"][0]["message"]["content"].split()[0])
        for body in (reply.json() for reply in replies)
    }
    assert told <= {("fake", "The"), ("r1", "One"), ("r2", "Two")}
    assert {("fake", "The"), ("r1", "One")} <= told


def test_an_engine_is_stopped_only_when_its_last_answer_is_written(home: Home) -> None:
    base, serving = home.engine, home.releases.lineup.current
    assert isinstance(base, Held)
    with ThreadPoolExecutor(2) as pool:
        with base.held():
            slow = pool.submit(home.ask)
            eventually(lambda: serving.under_way == 1)
            base.comes = True
            promote(home, "r1")
            second = pool.submit(promote, home, "r2")  # which stops the base
            eventually(lambda: home.releases.lineup.get("base") is None)
            time.sleep(0.2)
            assert home.launcher.stopped == [] and not slow.done() and not second.done()
        assert second.result().status_code == 200
        assert slow.result().json()["knowledge"]["release"] == "fake"
    assert home.launcher.stopped == ["base"]


@pytest.mark.parametrize("name", ["slow", "r1"])
def test_an_answer_that_goes_on_is_waited_for_however_long_it_is_and_one_that_stalls_is_not(
    home: Home, name: str
) -> None:
    promote(home, name)
    with restarted(home, stall_seconds=1.0), ThreadPoolExecutor(1) as pool:
        serving, engine = home.releases.lineup.current, home.launcher.attach(manifest("r1"))
        assert isinstance(engine, Held)
        with engine.held():
            asked = pool.submit(home.ask)
            eventually(lambda: serving.under_way == 1)
            assert promote(home, "base").status_code == 200
            assert promote(home, "r2").status_code == 200  # which stops what is asked
            assert name in home.launcher.stopped
            assert serving.under_way == (1 if name == "r1" else 0)
        assert asked.result().status_code == 200


def test_what_is_being_stopped_is_stopped_although_another_is_promoted_meanwhile(
    home: Home,
) -> None:
    promote(home, "r2")
    promote(home, "r1")
    home.launcher.running.add("base")
    home.launcher.needed.add("base")  # as where adapters stand on it
    home.launcher.stopped.clear()
    home.releases = home.resumed(keep_seconds=0.05)
    home.client = type(home.client)(home.app(), base_url="http://127.0.0.1:8000")
    one, serving = home.launcher.attach(manifest("r1")), home.releases.lineup.current
    assert isinstance(one, Held)
    with home.client, ThreadPoolExecutor(1) as pool:
        with one.held():
            slow = pool.submit(home.ask)
            eventually(lambda: serving.under_way == 1)
            rollback(home)
            eventually(lambda: home.releases.lineup.get("r1") is None)
            assert rollback(home).json()["current"] == "base"
            assert "r1" not in home.launcher.stopped and not slow.done()
        assert slow.result().json()["knowledge"]["release"] == "r1"
        eventually(lambda: "r1" in home.launcher.stopped)


def made_anew(home: Home, name: str, reply: str) -> None:
    """Another release under the same id."""
    shutil.rmtree(home.path / "releases" / name)
    store(home.path, name, embedder=home.embedder.name, metrics={"clean_correct": 0.9})
    home.launcher._engines[name] = FakeEngine(reply, name=name)


def test_a_release_that_was_made_anew_is_not_answered_for_by_the_one_that_is_kept(
    home: Home,
) -> None:
    promote(home, "r1")
    rollback(home)
    made_anew(home, "r1", "Anew it opens at 8:15.")
    assert promote(home, "r1").json()["current"] == "r1"
    assert says(home) == ("Anew", "r1")
    assert home.launcher.stopped == ["r1"]


def test_a_release_that_was_made_anew_cannot_take_the_place_of_itself(home: Home) -> None:
    promote(home, "r1")
    assert promote(home, "r1").json()["current"] == "r1"
    made_anew(home, "r1", "Anew it opens at 8:15.")
    told = error(promote(home, "r1"), 409, "not_promotable")
    assert "another release" in told["message"]
    assert says(home) == ("One", "r1") and home.launcher.started == ["r1"]


def test_what_was_promoted_by_force_may_be_promoted_again_without(home: Home) -> None:
    shutil.rmtree(home.path / "releases" / "r1")
    store(home.path, "r1", embedder=home.embedder.name, gate={"passed": False, "why": "worse"})
    promote(home, "r1", force=True)
    assert promote(home, "r1").json()["current"] == "r1"


def test_one_promotion_at_a_time_and_its_progress_is_shown(home: Home) -> None:
    coming = home.launcher.attach(manifest("r1"))
    assert isinstance(coming, Held)
    with ThreadPoolExecutor(1) as pool:
        with coming.held():
            first = pool.submit(promote, home, "r1")
            eventually(lambda: states(home).get("r1") == "starting")
            for refused in (promote(home, "r2"), rollback(home)):
                assert "r1" in error(refused, 409, "promotion_under_way")["message"]
            assert home.client.get("/health/ready").json()["parts"]["engine"]
            assert says(home) == ("The", "fake")
        assert first.result().status_code == 200
    assert states(home)["r1"] == "current"


def test_a_server_that_starts_again_goes_on_with_its_release(home: Home) -> None:
    promote(home, "r1")
    again = home.resumed().lineup
    assert again.current.release == "r1"
    assert [one.release for one in again.others()] == ["base"]
    home.launcher.running.discard("base")
    assert home.resumed().lineup.others() == []


def test_a_server_that_starts_again_keeps_what_was_kept_no_longer_than_that(home: Home) -> None:
    promote(home, "r1")
    with restarted(home, keep_seconds=0.05):
        eventually(lambda: states(home) == {"r1": "current"})
        eventually(lambda: home.launcher.stopped == ["base"])


def test_a_server_that_starts_again_stops_what_nobody_answers_with(home: Home) -> None:
    promote(home, "r1")
    rollback(home)
    home.launcher.running.add("r2")  # as when it was killed while this came up
    with restarted(home):
        assert states(home) == {"base": "current"}
        assert sorted(home.launcher.stopped) == ["r1", "r2"]
        assert home.launcher.running == {"base"}


def test_a_current_release_that_cannot_be_served_leaves_the_base(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    promote(home, "r1")
    file = home.path / "releases" / "r1" / "release.json"
    other = json.loads(file.read_text()) | {"base": {"name": "org/other"}}
    file.write_text(json.dumps(other))
    assert home.resumed().lineup.current.release == "base"
    assert "org/other" in capsys.readouterr().out
    shutil.rmtree(file.parent)
    assert home.resumed().lineup.current.release == "base"
    assert "release.json is missing" in capsys.readouterr().out


def test_after_the_base_had_to_answer_it_can_be_promoted_or_the_release_once_it_is_repaired(
    home: Home,
) -> None:
    promote(home, "r1")
    weights = home.path / "releases" / "r1" / "adapter" / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(b"other")
    with restarted(home):
        assert states(home) == {"base": "current"}
        weights.write_bytes(whole)
        assert promote(home, "r1").json()["current"] == "r1"
        assert release.succession(home.path) == ["r1", "base"]
        assert rollback(home).json()["current"] == "base"
        promote(home, "r1")
    weights.write_bytes(b"other")
    with restarted(home):
        assert promote(home, "base").json()["current"] == "base"
        assert release.succession(home.path)[:2] == ["base", "r1"]
    weights.write_bytes(whole)
    assert home.resumed().lineup.current.release == "base"


def test_only_admins_of_the_whole_house_change_what_is_served(home: Home) -> None:
    tokens = {
        "write": home.keys.create("w", "write"),
        "bound": home.keys.create("b", "admin", ["handbook"]),
        "admin": home.keys.create("a", "admin"),
    }
    status = {}
    for name, token in tokens.items():
        headers = {"Authorization": f"Bearer {token}"}
        status[name] = [
            home.client.get("/admin/releases", headers=headers).status_code,
            home.client.post("/admin/releases/r2/promote", headers=headers).status_code,
            home.client.post("/admin/releases/rollback", headers=headers).status_code,
        ]
    assert status == {"write": [403] * 3, "bound": [200, 403, 403], "admin": [200] * 3}
