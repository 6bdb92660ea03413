"""A damaged base model is one line that names the file, and exit code 3, before anything is run."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file

from finetune import cli, whole
from finetune.models import load
from finetune.settings import TrainSettings
from kb.errors import BadConfiguration, ModelBroken
from tests.finetune.small_runs import run

WEIGHTS, CONFIG = "model.safetensors", "config.json"
INDEX = f"{WEIGHTS}.index.json"


def cut(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:-1])


def garbled(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(b"x" * 400 + content[400:])


def sharded(folder: Path) -> None:
    """In two files and their index."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    parts = {name: f"model-{n % 2}.safetensors" for n, name in enumerate(tensors)}
    for part in set(parts.values()):
        some = {name: one for name, one in tensors.items() if parts[name] == part}
        save_file(some, folder / part, metadata={"format": "pt"})
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": parts}))


def incomplete(folder: Path) -> None:
    sharded(folder)
    (folder / "model-1.safetensors").unlink()


def half_a_shard(folder: Path) -> None:
    sharded(folder)
    (folder / "model-0.safetensors").write_bytes(b"")


def unindexed(folder: Path) -> None:
    sharded(folder)
    (folder / INDEX).write_text("{}")


def unreadable(folder: Path) -> None:
    (folder / CONFIG).write_text('{"model_type": "lla')


def a_list(folder: Path) -> None:
    (folder / CONFIG).write_text("[]")


@pytest.fixture
def base(tmp_path: Path, tiny_model: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(tiny_model, tmp_path / "base"))


@pytest.mark.parametrize(
    ("damage", "named", "said"),
    [
        (cut, WEIGHTS, "damaged or cut off"),
        (garbled, WEIGHTS, "damaged or cut off"),
        (incomplete, "model-1.safetensors", f"is not there, and {INDEX} names it"),
        (half_a_shard, "model-0.safetensors", "damaged or cut off"),
        (unindexed, INDEX, "has no weight_map"),
        (unreadable, CONFIG, "cannot be read"),
        (a_list, CONFIG, "is no JSON object"),
    ],
)
@pytest.mark.parametrize("command", ["doctor", "plan", "train"])
def test_a_damaged_base_is_3_and_names_the_file(
    base: Path,
    tmp_path: Path,
    command: str,
    damage: Callable[[Path], None],
    named: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(base)
    settings = run(tmp_path / "run", base)
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(settings.model_dump(mode="json", exclude_unset=True)))
    monkeypatch.setenv("VADEMECUM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("sys.argv", ["finetune", command, str(config)])
    assert cli.main() == 3
    out, err = capsys.readouterr()
    assert not out and err.splitlines()[-1].startswith(f"{base / named}: {said}")
    assert "Traceback" not in err and not (settings.output_dir / "begun.json").exists()


def test_whole_weights_pass_in_one_file_or_in_several(base: Path) -> None:
    whole.check(str(base))
    sharded(base)
    whole.check(str(base))
    whole.check("org/model")  # nobody is asked


def test_what_is_found_out_only_when_it_is_loaded_is_said_too(base: Path, tmp_path: Path) -> None:
    """Files of a hub id are seen by nobody before; an adapter's are read last."""
    plain = TrainSettings.model_validate({"model_name_or_path": "x", "output_dir": tmp_path})
    load(str(base), plain, bf16=False).save_pretrained(tmp_path / "adapter")
    (tmp_path / "adapter/adapter_model.safetensors").write_bytes(b"x" * 99)
    going_on = plain.model_copy(update={"adapter_name_or_path": tmp_path / "adapter"})
    with pytest.raises(BadConfiguration, match=re.escape(str(tmp_path / "adapter"))):
        load(str(base), going_on, bf16=False)
    cut(base)
    with pytest.raises(ModelBroken, match=re.escape(str(base))):
        load(str(base), plain, bf16=False)
