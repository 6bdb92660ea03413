"""The options that all commands share: every one takes them, and --dry-run writes nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from finetune import cli
from tests.finetune.small_runs import run
from tests.finetune.test_release import command

COMMANDS: dict[str, Any] = typer.main.get_command(cli.cli).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_takes_the_options_that_all_have(name: str) -> None:
    taken = {option for one in COMMANDS[name].params for option in one.opts}
    assert {"--set", "--dry-run", "--json"} <= taken


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def config(tmp_path: Path, tiny_model: Path) -> Path:
    settings = run(tmp_path / "run", tiny_model)
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(settings.model_dump(mode="json", exclude_unset=True)))
    return file


def dry(
    name: str,
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *more: str,
) -> dict[str, Any]:
    """What a dry run prints; it must write nothing."""
    before = files(config.parent)
    done = command(monkeypatch, config.parent, name, str(config), "--dry-run", "--json", *more)
    told, why = capsys.readouterr()
    assert done == 0, why
    assert files(config.parent) == before
    said: dict[str, Any] = json.loads(told)
    assert said.pop("dry_run") and said.pop("command") == name
    return said


def test_train_says_what_it_would_train(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = dry("train", config, monkeypatch, capsys, "--set", "stage=sft")
    assert said["stage"] == "sft" and said["rows"] == 12 and said["begins"] == "at the first step"
    refused = command(
        monkeypatch, config.parent, "train", str(config), "--dry-run", "--set", "dataset=/no.jsonl"
    )
    assert refused == 3


def test_promote_names_the_release_of_a_configuration_with_its_changes(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = dry("promote", config, monkeypatch, capsys, "--set", "release.name=r7")
    assert said == {"release": "r7"}


def test_merge_wants_a_finished_run_also_when_dry(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, config.parent, "merge", str(config), "--dry-run") == 3
    assert "holds no finished run" in capsys.readouterr().err
    (config.parent / "run/run.json").write_text("{}")
    said = dry("merge", config, monkeypatch, capsys, "--quantize", "4bit")
    assert said["folder"].endswith("run/merged-4bit")
