"""What the documentation shows is true: the example configuration, and the commands."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from app.settings import AppSettings, EngineSettings
from ingest.settings import IngestSettings
from kb.settings import KbSettings, Section, load

ROOT = Path(__file__).parent.parent
EXAMPLE = "vademecum.example.toml"
SECTIONS: dict[str, type[Section]] = {
    "kb": KbSettings,
    "ingest": IngestSettings,
    "engine": EngineSettings,
    "app": AppSettings,
}


@pytest.mark.parametrize("name", SECTIONS)
def test_the_example_configuration_is_complete_and_holds_the_defaults(name: str) -> None:
    kind = SECTIONS[name]
    written = tomllib.loads((ROOT / EXAMPLE).read_text(encoding="utf-8"))[name]
    assert sorted(written) == sorted(kind.model_fields)
    configuration = load({"VADEMECUM_CONFIG": EXAMPLE}, ROOT)
    assert configuration.section(name, kind) == kind()


@pytest.mark.parametrize(
    "command",
    [
        "up",
        "ask",
        "kb list",
        "kb verify",
        "kb compact",
        "keys create",
        "models",
        "eval retrieval",
        "eval grounding",
    ],
)
def test_every_documented_command_exists(command: str) -> None:
    first = command.split(maxsplit=1)[0]
    assert f"vademecum {first}" in (ROOT / "README.md").read_text(encoding="utf-8")
    run = [sys.executable, "-m", "app.cli", *command.split(), "--help"]
    assert subprocess.run(run, cwd=ROOT, capture_output=True, check=False).returncode == 0
