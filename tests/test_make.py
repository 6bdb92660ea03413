"""What the Makefile promises, with a `finetune` that only takes notes."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FINETUNE = """#!/bin/sh
echo "$1" >> said
env >> environment
if [ "$1" = train ]; then
  test -e data/runs/bundled/run.json && { echo "is finished already"; exit 0; }
  mkdir -p data/runs/bundled && date +%N > data/runs/bundled/run.json
fi
if [ "$1" = eval ] && [ -e cut-off ]; then exit 1; fi
if [ "$1" = release ]; then
  mkdir -p "$VADEMECUM_HOME/releases" && mkdir "$VADEMECUM_HOME/releases/new-1" || exit 1
  cp data/runs/bundled/run.json "$VADEMECUM_HOME/releases/new-1/release.json"
fi
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkout that is set up already."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/finetune").write_text(FINETUNE)
    (tmp_path / "bin/finetune").chmod(0o755)
    (tmp_path / "kb/shipped/old-1").mkdir(parents=True)
    config = tmp_path / "finetune/configs/bundled.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("release:\n  name: new-1\n  quotes: 2\n")
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k/train.jsonl").write_text("".join(f"{n}\n" for n in range(90)))
    return tmp_path


def make(folder: Path, **variables: str) -> int:
    command = ["make", "--silent", "release-bundled", "BIN=bin", "READY="]
    environment = {**os.environ, "VADEMECUM_DATA": str(folder), **variables}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    return done.returncode


def shipped(folder: Path) -> str:
    assert [path.name for path in (folder / "kb/shipped").iterdir()] == ["new-1"]
    return (folder / "kb/shipped/new-1/release.json").read_text()


def test_the_release_that_ships_can_be_made_again_and_again(folder: Path) -> None:
    assert make(folder) == 0
    first = shipped(folder)
    assert make(folder) == 0
    assert shipped(folder) != first


def test_the_maths_that_the_release_is_judged_on_is_kept_apart(folder: Path) -> None:
    make(folder)
    kept = (folder / "data/runs/bundled/maths.jsonl").read_text().split()
    assert kept == [str(n) for n in range(30, 90)]


def test_a_making_that_was_cut_off_goes_on_with_what_was_trained(folder: Path) -> None:
    (folder / "cut-off").touch()
    assert make(folder) != 0
    trained = (folder / "data/runs/bundled/run.json").read_text()
    (folder / "cut-off").unlink()
    assert make(folder) == 0
    assert shipped(folder) == trained


def test_modules_are_compiled_once_even_where_the_environment_forbids_to_keep_them(
    folder: Path,
) -> None:
    make(folder, PYTHONDONTWRITEBYTECODE="1")
    assert "PYTHONDONTWRITEBYTECODE" not in (folder / "environment").read_text()
