"""A release holds what was judged, says what it is, and is refused where that is not so."""

import json
import shutil
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest
from safetensors.torch import load_file, save_file

from finetune import cli, evaluate, judged, report
from finetune.evaluate import Models
from finetune.release import make
from finetune.server import Refused, Releases, ServerDown
from finetune.settings import TrainSettings
from kb import release as releases
from kb.errors import AlreadyExists, BadConfiguration, BadData, GateClosed
from kb.prompt import PROMPT_VERSION
from kb.settings import KbSettings
from tests.finetune.handbook import bases
from tests.finetune.judging import Scripted, settings
from tests.finetune.test_engines import adapter
from tests.finetune.test_evaluate import calculator, parrot, silent

KB = KbSettings(embedder="fake:64")


HERE = judged.Names()
SERVER = judged.Names("http://unused", "base", "tuned")


def judge(run: TrainSettings, candidate: Scripted, home: Path, names: judged.Names = HERE) -> None:
    """Evaluate as the command does, with scripted models."""
    _, about = judged.open_engines(run, None, names, home, silent)
    asked = evaluate.items(run, bases(run.output_dir))
    done = evaluate.evaluate(run, asked, Models(parrot(), candidate), silent)
    report.write(done, about, run.output_dir)


@pytest.fixture
def run(tmp_path: Path, tiny_model: Path) -> TrainSettings:
    """A trained run over the tiny model, judged and let through."""
    made = settings(tmp_path)
    made = made.model_copy(
        update={
            "model_name_or_path": str(tiny_model),
            "release": made.release.model_copy(update={"name": "r1", "evidence": 0.05}),
        }
    )
    adapter(tiny_model, made.output_dir / "adapter", 1)
    told = {"rows": {"trained": 7, "sha256": "a" * 64}, "revision": "abc+"}
    (made.output_dir / "run.json").write_text(json.dumps(told), encoding="utf-8")
    judge(made, Scripted("tuned", calculator), tmp_path)
    return made


def test_a_release_says_what_it_is_and_reads_back_whole(
    run: TrainSettings, tmp_path: Path, tiny_model: Path
) -> None:
    made = make(run, KB, tmp_path)
    place = tmp_path / "releases/r1"
    assert releases.read(place) == made
    assert made.gate.passed and "better" in made.gate.why
    assert made.base.files == releases.weights(tiny_model)
    assert made.adapter is not None and (made.adapter.rank, made.adapter.alpha) == (2, 8)
    assert (made.prompt_version, made.embedder) == (PROMPT_VERSION, "fake-64")
    assert (made.serving.evidence, made.serving.context_tokens) == (0.05, 2000)
    assert made.revision == "abc+"
    assert (made.data[0].rows, made.data[0].licence) == (7, "not stated")
    assert made.metrics["grounding right"] == 1.0
    assert "eval/report.html" in made.files


def test_a_release_knows_no_path_of_this_machine(
    run: TrainSettings, tmp_path: Path, tiny_model: Path
) -> None:
    make(run, KB, tmp_path)
    for file in (tmp_path / "releases/r1").rglob("*"):
        if file.suffix in (".json", ".md", ".html") and file.name != "release.json":
            text = file.read_text(encoding="utf-8")
            assert str(tmp_path) not in text and str(tiny_model) not in text, file


def test_the_sources_and_the_retriever_are_those_that_the_run_was_trained_by(
    run: TrainSettings, tmp_path: Path
) -> None:
    """Whatever `[kb]` or data.json say by now."""
    account = {
        "sources": [
            {"name": "qa.jsonl", "licence": "MIT", "sha256": "b" * 64},
            {"name": "handbook", "licence": "", "sha256": "d" * 64},
        ],
        "mix": {"sources": {"qa.jsonl": {"taken": 5}, "handbook": {"taken": 2}}},
        "retrieval": {"embedder": "fake-32", "chunker": {"tokens": 99, "version": 1}},
    }
    file = run.output_dir / "run.json"
    trained = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(trained | {"data": account}), encoding="utf-8")
    (run.output_dir / "data").mkdir()
    (run.output_dir / "data/data.json").write_text("{}", encoding="utf-8")
    made = make(run, KB, tmp_path)
    assert (made.embedder, made.chunker.tokens, made.chunker.version) == ("fake-32", 99, 1)
    told = [(s.name, s.licence, s.rows, s.sha256[0]) for s in made.data]
    assert told == [("qa.jsonl", "MIT", 5, "b"), ("handbook", "not stated", 2, "d")]


def test_what_the_gate_refused_is_released_only_by_force(
    run: TrainSettings, tmp_path: Path
) -> None:
    judge(run, parrot(), tmp_path)
    with pytest.raises(GateClosed, match="not shown to be better"):
        make(run, KB, tmp_path)
    assert not (tmp_path / "releases").exists()
    assert not make(run, KB, tmp_path, force=True).gate.passed


def test_what_a_server_answered_proves_nothing_of_the_runs_weights(
    run: TrainSettings, tmp_path: Path
) -> None:
    judge(run, Scripted("tuned", calculator), tmp_path, SERVER)
    assert "files" not in report.read(run.output_dir)
    for force in (False, True):
        with pytest.raises(BadData, match=r"judged with --engine.* run `finetune eval` without it"):
            make(run, KB, tmp_path, force=force)


def test_a_server_is_not_asked_for_what_it_cannot_have(run: TrainSettings, tmp_path: Path) -> None:
    of_seeds = run.model_copy(update={"eval": run.eval.model_copy(update={"seeds": (1, 2)})})
    with pytest.raises(BadConfiguration, match=r"eval\.seeds"):
        judged.open_engines(of_seeds, None, SERVER, tmp_path, silent)
    held = run.model_copy(update={"eval": run.eval.model_copy(update={"against": "r1"})})
    with pytest.raises(BadConfiguration, match=r"eval\.against"):
        judged.open_engines(held, None, SERVER, tmp_path, silent)
    with pytest.raises(BadConfiguration, match="--adapter"):
        judged.open_engines(run, tmp_path, SERVER, tmp_path, silent)
    with pytest.raises(BadConfiguration, match="--candidate"):
        judged.open_engines(run, None, judged.Names("http://unused"), tmp_path, silent)


def test_weights_that_were_not_judged_are_refused(
    run: TrainSettings, tmp_path: Path, tiny_model: Path
) -> None:
    adapter(tiny_model, run.output_dir / "adapter", 2)
    with pytest.raises(BadData, match="judged with other weights"):
        make(run, KB, tmp_path)


def test_an_adapter_that_weighs_more_than_when_it_was_judged_is_refused(
    run: TrainSettings, tmp_path: Path
) -> None:
    file = run.output_dir / "adapter/adapter_config.json"
    told = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(told | {"lora_alpha": 64}), encoding="utf-8")
    with pytest.raises(BadData, match="judged with other weights or settings"):
        make(run, KB, tmp_path)


def test_what_no_engine_serves_is_not_released(run: TrainSettings, tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match="reward model"):
        make(run.model_copy(update={"stage": "rm"}), KB, tmp_path)
    file = run.output_dir / "adapter/adapter_config.json"
    file.write_text(json.dumps({"peft_type": "P_TUNING", "num_virtual_tokens": 3}))
    with pytest.raises(BadData, match="vLLM serves LoRA, not P_TUNING"):
        make(run, KB, tmp_path)


def test_another_base_of_the_same_shape_is_refused(
    run: TrainSettings, tmp_path: Path, tiny_model: Path
) -> None:
    for name, said in (("other", "another base"), (tiny_model.name, "other weights of the base")):
        beside = tmp_path / "elsewhere" / name
        shutil.copytree(tiny_model, beside)
        tensors = load_file(beside / "model.safetensors")
        save_file({k: v + 1 for k, v in tensors.items()}, beside / "model.safetensors")
        changed = run.model_copy(update={"model_name_or_path": str(beside)})
        with pytest.raises(BadData, match=said):
            make(changed, KB, tmp_path)


def test_another_room_for_references_than_was_judged_is_refused(
    run: TrainSettings, tmp_path: Path
) -> None:
    wider = run.release.model_copy(update={"context_tokens": 900})
    with pytest.raises(BadData, match=r"another release\.context_tokens"):
        make(run.model_copy(update={"release": wider}), KB, tmp_path)


def test_another_prompt_is_refused(run: TrainSettings, tmp_path: Path) -> None:
    file = run.output_dir / "eval/eval.json"
    told = json.loads(file.read_text(encoding="utf-8")) | {"prompt_version": 0}
    file.write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(BadData, match="another prompt version"):
        make(run, KB, tmp_path)


def test_a_run_that_was_not_judged_is_refused(run: TrainSettings, tmp_path: Path) -> None:
    (run.output_dir / "eval/eval.json").unlink()
    with pytest.raises(BadData, match="finetune eval"):
        make(run, KB, tmp_path)


def test_a_name_is_taken_once_and_must_be_one(run: TrainSettings, tmp_path: Path) -> None:
    make(run, KB, tmp_path)
    with pytest.raises(AlreadyExists, match="r1"):
        make(run, KB, tmp_path)
    wrong = run.model_copy(update={"release": run.release.model_copy(update={"name": "current"})})
    with pytest.raises(BadConfiguration, match=r"release\.id: .*up to 64"):
        make(wrong, KB, tmp_path)


def test_no_half_release_is_left_behind(run: TrainSettings, tmp_path: Path) -> None:
    make(run, KB, tmp_path)
    assert [p.name for p in (tmp_path / "releases").iterdir()] == ["r1"]
    assert not list(run.output_dir.glob(".release-*"))


# -- the command line and the server -------------------------------------------------------------


def command(monkeypatch: pytest.MonkeyPatch, home: Path, *arguments: str) -> int:
    monkeypatch.setenv("VADEMECUM_HOME", str(home))
    monkeypatch.setattr(sys, "argv", ["finetune", *arguments])
    return cli.main()


def test_list_works_without_a_server(
    run: TrainSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make(run, KB, tmp_path)
    releases.succeed(tmp_path, ["r1", "base"])
    assert command(monkeypatch, tmp_path, "list", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["current"] == "r1"
    assert [(row["id"], row["state"]) for row in told["data"]] == [("base", ""), ("r1", "current")]
    assert command(monkeypatch, tmp_path, "list") == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("* r1")


def test_a_dry_release_says_what_it_would_write_and_writes_nothing(
    run: TrainSettings,
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "run.yaml"
    document = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(document | {"model_name_or_path": str(tiny_model)}))
    asked = ("release", str(file), "--json", "--dry-run", "--set", "release.name=r9")
    assert command(monkeypatch, tmp_path, *asked) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["folder"] == str(tmp_path / "releases/r9") and "better" in said["gate"]
    assert not (tmp_path / "releases").exists()
    (run.output_dir / "adapter/adapter_model.safetensors").write_bytes(b"other")
    assert command(monkeypatch, tmp_path, *asked) == 3


def test_a_servers_releases_are_a_short_line_each_and_a_rollback_can_be_tried_dry(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    row = {"id": "r1", "state": "current", "kind": "adapter", "metrics": {"grounding right": 0.5}}
    told = {"current": "r1", "data": [row | {"gate": {"passed": False, "why": "forgot maths"}}]}

    class Told(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"GET {self.path}")
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(told).encode())

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Told) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        Thread(target=server.handle_request).start()
        assert command(monkeypatch, tmp_path, "rollback", "--url", url, "--dry-run", "--json") == 0
        assert json.loads(capsys.readouterr().out)["current"] == "r1"
        Thread(target=server.handle_request).start()
        assert command(monkeypatch, tmp_path, "list", "--url", url) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.split() == ["*", "r1", "current", "passed", "False,", "kind", "adapter"]
    assert asked == ["GET /admin/releases"] * 2


def test_promote_takes_an_id_or_the_configuration(
    run: TrainSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command(monkeypatch, tmp_path, "promote", "r7", "--dry-run") == 0
    file = str(tmp_path / "run.yaml")
    assert command(monkeypatch, tmp_path, "promote", file, "--dry-run") == 0
    said = "would promote: release r7\nwould promote: release release\n"
    assert capsys.readouterr().out == said
    assert command(monkeypatch, tmp_path, "promote", "none.yaml") == 3


def test_without_a_server_promote_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, tmp_path, "promote", "r1", "--url", "http://127.0.0.1:9") == 1
    assert "no server answers" in capsys.readouterr().err


def test_the_server_is_asked_as_its_interface_says() -> None:
    asked = []

    def reply(request: httpx.Request) -> httpx.Response:
        asked.append((request.method, request.url.path, request.headers.get("authorization")))
        return httpx.Response(200, json={"object": "list", "current": "r1", "data": []})

    server = Releases("http://s/v1", "key", transport=httpx.MockTransport(reply))
    assert server.list() == server.promote("r1") == server.rollback()
    assert asked == [
        ("GET", "/admin/releases", "Bearer key"),
        ("POST", "/admin/releases/r1/promote", "Bearer key"),
        ("POST", "/admin/releases/rollback", "Bearer key"),
    ]


def test_the_connection_is_closed_with_it() -> None:
    closed = []

    class Told(httpx.MockTransport):
        def close(self) -> None:
            closed.append(True)

    with Releases("http://s", transport=Told(lambda request: httpx.Response(200, json={}))) as one:
        one.list()
        assert not closed
    assert closed


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (httpx.Response(409, json={"error": {"message": "its gate said no"}}), "its gate said no"),
        (httpx.Response(401, json={"error": {"message": "no key"}}), "no key .*VADEMECUM_KEY"),
        (httpx.Response(502, text="<html>"), "status 502"),
    ],
)
def test_what_the_server_refuses_is_said(reply: httpx.Response, said: str) -> None:
    server = Releases("http://s", transport=httpx.MockTransport(lambda request: reply))
    with pytest.raises(Refused, match=said):
        server.promote("r1")


def test_a_gate_that_the_server_finds_closed_ends_promote_with_2(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def closed(self: Releases, release: str, *, force: bool = False) -> None:
        transport = httpx.MockTransport(
            lambda request: httpx.Response(
                409, json={"error": {"message": "did not pass its gate", "code": "gate_closed"}}
            )
        )
        promote(Releases("http://s", transport=transport), release, force=force)

    promote = Releases.promote
    monkeypatch.setattr(Releases, "promote", closed)
    assert command(monkeypatch, tmp_path, "promote", "r1") == 2
    assert "did not pass its gate" in capsys.readouterr().err


def test_a_server_that_breaks_off_is_said_to() -> None:
    def broken(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("gone")

    with pytest.raises(ServerDown, match="broke off"):
        Releases("http://s", transport=httpx.MockTransport(broken)).rollback()
