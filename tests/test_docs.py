"""What the documentation shows is true: the example configuration, and the commands."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from app.settings import AppSettings, EngineSettings
from finetune import evaluate
from finetune.data_settings import DataSettings, Knowledge, Source
from finetune.settings import EvalSettings, ReleaseSettings, TrainSettings
from finetune.settings import load as load_run
from ingest.settings import IngestSettings
from kb.settings import KbSettings, Section, load
from tests.finetune.handbook import bases

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


@pytest.mark.parametrize(
    "kind", [TrainSettings, DataSettings, Source, Knowledge, EvalSettings, ReleaseSettings]
)
def test_every_key_of_a_training_run_is_documented(kind: type[Section]) -> None:
    text = (ROOT / "docs/finetuning.md").read_text(encoding="utf-8")
    assert not [key for key in kind.model_fields if not re.search(rf"[`.]{key}[`:]", text)]


def test_the_sample_configuration_is_the_one_that_is_shown_and_its_files_are_there(
    tmp_path: Path,
) -> None:
    file = ROOT / "examples/tuning/handbook.yaml"
    shown = (ROOT / "docs/finetuning.md").read_text(encoding="utf-8")
    assert file.read_text(encoding="utf-8") in shown
    settings = load_run(file)
    named = [*settings.eval.grounding, *settings.eval.text]
    named += [one.path for one in settings.data.sources]
    named += [one.questions for one in settings.data.knowledge if one.questions]
    assert len(named) == 5 and all(path.is_file() for path in named)
    assert evaluate.items(settings, bases(tmp_path)).counts() == {
        "questions": 0, "grounding": 44, "choice": 0, "maths": 0, "text": 8,
    }  # fmt: skip


def test_the_engine_of_the_compose_file_can_be_given_releases() -> None:
    """It serves the base that manifests name, and reads adapters where the server puts them."""
    services = yaml.safe_load((ROOT / "docker/compose.yaml").read_text(encoding="utf-8"))[
        "services"
    ]
    engine, server = services["engine"], services["server"]
    model = engine["command"][engine["command"].index("--model") + 1]
    assert server["environment"]["VADEMECUM_ENGINE__MODEL"] == model
    assert "--enable-lora" in engine["command"]
    assert engine["environment"]["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
    assert engine["volumes"] == [f"{server['volumes'][0]}:ro"]
