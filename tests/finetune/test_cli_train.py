"""The commands: what they print, where, and how they end."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune import cli
from kb.errors import UnknownKnowledgeBase
from tests.finetune.small_runs import run


@pytest.fixture
def config(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VADEMECUM_HOME", str(tmp_path / "home"))
    settings = run(tmp_path / "run", tiny_model)
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(settings.model_dump(mode="json", exclude_unset=True)))
    return file


def called(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["finetune", *arguments])
    return cli.main()


def test_json_is_all_that_stands_on_standard_output(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        called("train", str(config), "--json", "--set", "max_steps=3", monkeypatch=monkeypatch) == 0
    )
    printed = capsys.readouterr()
    done = json.loads(printed.out)
    assert done == json.loads((config.parent / "run/run.json").read_text())
    assert "step 3/3: loss" in printed.err and "tok/s" in printed.err and "left" in printed.err
    assert called("merge", str(config), "--json", monkeypatch=monkeypatch) == 0
    assert json.loads(capsys.readouterr().out)["quantize"] == "none"


def test_people_read_losses_speed_and_where_the_result_is(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called("train", str(config), monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    assert "loss (train): " in said and "loss (domain): " in said
    assert f"{config.parent / 'run/adapter'} (step 9)" in said


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UnknownKnowledgeBase("no knowledge base is called handbok"), 3, "called handbok"),
        (MemoryError(), 1, "too little memory"),
        (RuntimeError("CUDA out of memory. Tried 2 GiB"), 1, "too little memory: CUDA out of"),
    ],
)
@pytest.mark.parametrize("command", ["data", "plan"])
def test_what_any_command_may_lack_is_one_line(
    config: Path,
    command: str,
    error: Exception,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fails(*args: Any, **kwargs: Any) -> None:
        raise error

    for step in ("finetune.dataset.prepare", "finetune.doctor.examine"):
        monkeypatch.setattr(step, fails)
    assert called(command, str(config), monkeypatch=monkeypatch) == code
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_an_error_that_is_no_lack_of_memory_is_not_swallowed(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr("finetune.dataset.prepare", fails)
    with pytest.raises(RuntimeError, match="shapes"):
        called("data", str(config), monkeypatch=monkeypatch)


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ("lora_rnk=8", 3, "unknown key"),
        ("allow=[epoch]", 3, "allow: no rule is called epoch; did you mean epochs?"),
        ("dataset=/no/such.jsonl", 3, "/no/such.jsonl: No such file"),
        ("model_name_or_path=nothing", 3, "no model is called 'nothing'"),
    ],
)
def test_what_is_wrong_is_one_line_and_an_exit_code(
    config: Path,
    change: str,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert called("train", str(config), "--set", change, monkeypatch=monkeypatch) == code
    printed = capsys.readouterr()
    assert said in printed.err.splitlines()[-1] and not printed.out
    assert "Traceback" not in printed.err


@pytest.mark.parametrize(
    ("asked", "spins"),
    [
        ({}, "10000"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "active"}, None),
    ],
)
def test_threads_that_wait_leave_the_processor_to_others_unless_told_otherwise(
    tmp_path: Path, asked: dict[str, str], spins: str | None
) -> None:
    """As libgomp reads it when torch is imported, which is later."""
    code = (
        "import json, os, sys; from finetune.cli import main; main();"
        "print(json.dumps([os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules]))"
    )
    named = {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-c", code, "train", str(tmp_path / "none.yaml")],
        env={key: value for key, value in os.environ.items() if key not in named} | asked,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [spins, False], done.stderr
