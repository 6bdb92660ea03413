"""Readiness, metrics, models, embeddings and the page; and the server as a process."""

import base64
import os
import re
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from app.engine import FakeEngine
from app.ports import free_port
from kb import latency
from kb.layout import DATABASE
from kb.store import Store
from kb.unwatched import note
from tests.app.serving import HOURS, Home, error
from tests.app.supervise import eventually

ROOT = Path(__file__).parents[2]
WEB = ROOT / "app" / "web"


def test_ready_names_the_part_that_is_not(home: Home) -> None:
    assert isinstance(home.engine, FakeEngine)
    assert home.client.get("/health/live").json() == {"status": "ok"}

    def parts() -> dict[str, bool]:
        reply = home.client.get("/health/ready")
        body = reply.json()
        assert (reply.status_code == 200) is all(body["parts"].values())
        assert (body["status"] == "ok") is all(body["parts"].values())
        found: dict[str, bool] = body["parts"]
        return found

    assert parts() == {"engine": True, "knowledge_base": True, "ingest": False}
    with home.followed():
        assert parts() == {"engine": True, "knowledge_base": True, "ingest": True}
        home.engine.up = False
        assert parts() == {"engine": False, "knowledge_base": True, "ingest": True}
    home.client.delete(f"/v1/vector_stores/{home.handbook}")
    assert parts() == {"engine": False, "knowledge_base": False, "ingest": False}


def test_a_broken_store_does_not_take_the_others_down(home: Home) -> None:
    home.catalog.add("old", "another-embedder", 1)
    with home.followed():
        assert home.client.get("/health/ready").status_code == 200
    assert home.ask().status_code == 200
    listed = home.client.get("/v1/vector_stores").json()["data"]
    assert {one["name"] for one in listed} == {"handbook", "old"}
    reply = home.client.post("/v1/vector_stores/old/search", json={"query": "pharmacy"})
    assert "another-embedder" not in str(error(reply, 503, "knowledge_base_broken"))


def test_a_new_document_is_found_by_the_next_question(home: Home) -> None:
    home.write("owls.md", "Owls fly by night over the old mill.")
    body = home.ask("Where do owls fly by night?").json()
    assert body["knowledge"]["hits"][0]["filename"] == "owls.md"
    assert body["knowledge"]["generation"] == {home.handbook: 2}


def test_answers_are_counted(home: Home) -> None:
    assert isinstance(home.engine, FakeEngine)
    home.ask()
    home.engine.up = False
    home.ask()
    text = home.client.get("/metrics").text
    assert 'vademecum_answers_total{outcome="answered"} 1.0' in text
    assert 'vademecum_answers_total{outcome="broken"} 1.0' in text
    assert 'vademecum_generation{knowledge_base="handbook"} 1.0' in text
    assert "vademecum_answers_under_way 0.0" in text


def test_how_long_files_took_is_shown_by_knowledge_base_and_lane(home: Home) -> None:
    store = Store(home.catalog.get("handbook").folder / DATABASE)
    latency.note(store, "searchable", [(False, 0.25), (False, 0.07), (True, 40.0)])
    latency.note(store, "gone", [(False, 9999.0)])
    store.close()
    text = home.client.get("/metrics").text
    name = "vademecum_file_searchable_seconds"
    of = 'knowledge_base="handbook"'
    for line in (
        f"# TYPE {name} histogram",
        f'{name}_bucket{{{of},lane="fresh",le="0.05"}} 0.0',
        f'{name}_bucket{{{of},lane="fresh",le="0.1"}} 1.0',
        f'{name}_bucket{{{of},lane="fresh",le="0.3"}} 2.0',
        f'{name}_bucket{{{of},lane="fresh",le="+Inf"}} 2.0',
        f'{name}_count{{{of},lane="fresh"}} 2.0',
        f'{name}_sum{{{of},lane="bulk"}} 40.0',
        f'vademecum_file_gone_seconds_bucket{{{of},lane="fresh",le="1800.0"}} 0.0',
        f'vademecum_file_gone_seconds_bucket{{{of},lane="fresh",le="+Inf"}} 1.0',
    ):
        assert line in text.splitlines()


def test_how_many_folders_are_not_watched_live_is_shown(home: Home) -> None:
    name = 'vademecum_unwatched_folders{knowledge_base="handbook"}'
    assert f"{name} 0.0" in home.client.get("/metrics").text
    store = Store(home.catalog.get("handbook").folder / DATABASE)
    note(store, {"/docs": 12, "/more": 3}, "watches")
    store.close()
    assert f"{name} 15.0" in home.client.get("/metrics").text


def test_the_release_and_the_base_model_are_offered(still: Home) -> None:
    listed = still.client.get("/v1/models").json()
    assert [one["id"] for one in listed["data"]] == ["vademecum", "fake"]
    assert still.client.get("/v1/models/fake").json()["object"] == "model"
    assert still.ask(model="fake").status_code == 200


def test_texts_are_embedded_as_the_knowledge_base_does(still: Home) -> None:
    body = {"model": "vademecum", "input": [HOURS, "owls"] * 20}
    rows = still.client.post("/v1/embeddings", json=body).json()["data"]
    assert [row["index"] for row in rows] == list(range(40))
    (expected,) = still.embedder.passages(["owls"])
    assert rows[39]["embedding"] == pytest.approx(expected.tolist())
    packed = {**body, "input": "owls", "encoding_format": "base64"}
    (row,) = still.client.post("/v1/embeddings", json=packed).json()["data"]
    floats = struct.unpack("<64f", base64.b64decode(row["embedding"]))
    assert floats == pytest.approx(expected.tolist())
    error(
        still.client.post("/v1/embeddings", json={"model": "x", "input": "a"}),
        404,
        "model_not_found",
    )
    for wrong in ("", [], [""], [[1, 2]], None):
        reply = still.client.post("/v1/embeddings", json={"model": "vademecum", "input": wrong})
        assert error(reply, 400, "invalid_value")["param"].startswith("input")


def test_the_page_lets_nothing_else_in(home: Home) -> None:
    home.keys.create("one", "chat")  # the page itself is open: it asks for the key
    page = home.client.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "*" not in policy
    assert "frame-ancestors 'none'" in policy
    for part in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert part.startswith("/") and home.client.get(part).status_code == 200
    assert not re.search(r"<script>|<style|\son\w+=|style=", page.text)


def test_the_page_sets_text_and_never_html() -> None:
    script = (WEB / "page.js").read_text()
    for danger in (
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        "http://",
    ):
        assert danger not in script
    assert (
        "https://" not in script + (WEB / "index.html").read_text() + (WEB / "page.css").read_text()
    )


def environment(home: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "VADEMECUM_HOME": str(home), "VADEMECUM_KB__EMBEDDER": "fake:64", **more}


def test_a_bad_configuration_is_one_line_and_exit_3(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "app.serve"],
        env=environment(tmp_path, VADEMECUM_APP__PORT="many", VADEMECUM_APP__TOP_K="0"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert ended.returncode == 3 and ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert "[app] port" in line and "top_k" in line and "Traceback" not in line


def test_the_process_starts_answers_and_stops(home: Home) -> None:
    port = free_port("127.0.0.1")
    process = subprocess.Popen(
        [sys.executable, "-m", "app.serve"],
        env=environment(home.path, VADEMECUM_APP__PORT=str(port), VADEMECUM_ENGINE__PORT="1"),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        eventually(lambda: answers(f"{url}/health/live"), 20)
        parts = httpx.get(f"{url}/health/ready").json()["parts"]
        assert parts == {"engine": False, "knowledge_base": True, "ingest": False}
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.communicate()


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.ConnectError:
        return False


def test_a_port_that_is_taken_ends_the_process_with_1(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = subprocess.run(
            [sys.executable, "-m", "app.serve"],
            env=environment(home.path, VADEMECUM_APP__PORT=str(port)),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=20,
        )
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
