"""`finetune eval` from the command line: one JSON document, the right exit code, a report."""

import json
import sys
from pathlib import Path

import pytest

from finetune import cli
from tests.finetune.judging import settings
from tests.finetune.test_engines import adapter

QUICK = ("--limit", "3", "--json", "--set", "eval.maths=[]")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["finetune", *arguments])
    return cli.main()


@pytest.fixture
def config(tmp_path: Path, tiny_model: Path) -> Path:
    """Of a run over the tiny model that has not been trained."""
    settings(tmp_path, items=6)
    file = tmp_path / "run.yaml"
    document = json.loads(file.read_text(encoding="utf-8"))
    document["model_name_or_path"] = str(tiny_model)
    document["eval"]["max_tokens"] = 4
    file.write_text(json.dumps(document), encoding="utf-8")
    return file


def test_eval_judges_the_run_and_the_gate_says_no_with_2(
    config: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    adapter(tiny_model, config.parent / "run/adapter", 1)
    assert run(monkeypatch, "eval", str(config), *QUICK) == 2
    out, said = capsys.readouterr()
    made = json.loads(out)
    assert made["gate"]["passed"] is False and made["settings"]["most"] == 3
    assert {m["ability"] for m in made["measures"]} == {
        "grounding",
        "without retrieval",
        "choice",
        "text",
    }
    assert list(made["files"]) == ["adapter_config.json", "adapter_model.safetensors"]
    assert "the gate says no: grounding right" in said
    assert (config.parent / "run/eval/report.html").is_file()


def test_runs_of_other_seeds_are_judged_beside_it_and_must_differ_by_the_seed_alone(
    config: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    begun: dict[str, object] = {"learning_rate": 1e-4, "rows": "a" * 64}
    for name, seed in (("run", 42), ("run-seed7", 7)):
        adapter(tiny_model, config.parent / name / "adapter", seed)
        file = config.parent / name / "begun.json"
        file.write_text(json.dumps(begun | {"seed": seed}), encoding="utf-8")
    asked = ("eval", str(config), *QUICK, "--set", "eval.seeds=[7]")
    assert run(monkeypatch, *asked) == 2
    told = json.loads(capsys.readouterr().out)["seeds"]
    assert told and all(len(one["runs"]) == 2 for one in told)
    file = config.parent / "run-seed7/begun.json"
    file.write_text(json.dumps(begun | {"seed": 7, "rows": "b" * 64}), encoding="utf-8")
    assert run(monkeypatch, *asked) == 3
    assert "run-seed7: differs from run by more than the seed: rows" in capsys.readouterr().err
    assert run(monkeypatch, *asked[:-1], "eval.seeds=[8]") == 3
    assert "run-seed8/adapter: is not there" in capsys.readouterr().err


def test_eval_of_a_run_that_was_not_trained_says_so_with_3(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "eval", str(config)) == 3
    assert "run `finetune train` first" in capsys.readouterr().err


def test_a_dry_run_counts_and_asks_nothing(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "eval", str(config), "--dry-run", "--json", "--limit", "4") == 0
    counts = {"questions": 0, "grounding": 6, "choice": 4, "maths": 4, "text": 4}
    assert json.loads(capsys.readouterr().out) == counts


@pytest.mark.parametrize("asked", [("eval", "--dry-run"), ("doctor",)])
def test_a_release_that_is_not_there_is_named_before_a_run_is_trained(
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    asked: tuple[str, ...],
) -> None:
    monkeypatch.setenv("VADEMECUM_HOME", str(config.parent / "home"))
    command, *more = asked
    assert run(monkeypatch, command, str(config), "--set", "eval.against=r7", *more) == 3
    assert "eval.against: there is no release 'r7'" in capsys.readouterr().err


def test_a_wrong_command_line_is_3_and_not_the_gates_2(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "eval") == 3
    assert run(monkeypatch, "eval", "--help") == 0


def test_an_unknown_key_is_named(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "eval", str(config), "--set", "eval.margn=1") == 3
    assert "did you mean margin" in capsys.readouterr().err
