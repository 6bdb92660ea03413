"""Adapter and base become whole weights, once, in a folder that is complete or absent."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from kb import merging, release
from kb.errors import BadData, ModelBroken
from kb.manifest import Manifest
from tests.kb.releases import manifest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with random weights, and a chat template."""
    folder = tmp_path_factory.mktemp("base")
    config = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "vademecum.json").write_text("{}")
    return folder


def tune(home: Path, base: Path, *, scale: float = 0.5) -> Manifest:
    """A release with a LoRA adapter whose B matrices are random instead of zero."""
    run = home / "run"
    bare = AutoModelForCausalLM.from_pretrained(base)
    lora = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"])
    tuned = get_peft_model(bare, lora)
    torch.manual_seed(1)
    for name, weights in tuned.named_parameters():
        if "lora_B" in name:
            weights.data = scale * torch.randn_like(weights)
    tuned.save_pretrained(run)
    return release.write(home, manifest("r1"), {"adapter": run})


def test_merged_weights_are_base_plus_adapter_with_the_bases_template(
    tmp_path: Path, base: Path
) -> None:
    one = tune(tmp_path, base)
    assert not merging.is_merged(tmp_path, one)
    place = merging.merge(tmp_path, one, str(base))
    assert merging.is_merged(tmp_path, one)
    assert (place / "chat_template.jinja").read_text() == "{{ messages }}"
    assert not (place / "vademecum.json").exists()
    was = AutoModelForCausalLM.from_pretrained(base).state_dict()
    now = AutoModelForCausalLM.from_pretrained(place).state_dict()
    assert was.keys() == now.keys()
    changed = {name for name in was if not torch.equal(was[name], now[name])}
    assert changed == {name for name in was if "q_proj" in name or "v_proj" in name}
    assert next(iter(now.values())).dtype == torch.bfloat16


def test_merging_is_done_once_and_again_for_another_adapter(tmp_path: Path, base: Path) -> None:
    one = tune(tmp_path, base)
    place = merging.merge(tmp_path, one, str(base))
    assert merging.merge(tmp_path, one, "nowhere") == place  # nothing is read again
    other = one.model_copy(update={"files": {"adapter/adapter_model.safetensors": "0" * 64}})
    assert not merging.is_merged(tmp_path, other)
    (place / merging.MARKER).unlink()  # killed in the middle
    assert not merging.is_merged(tmp_path, one)


def test_an_adapter_that_changes_nothing_is_refused(tmp_path: Path, base: Path) -> None:
    with pytest.raises(BadData, match="changes no weight"):
        merging.merge(tmp_path, tune(tmp_path, base, scale=0.0), str(base))
    assert not list((tmp_path / "models").iterdir())


def test_a_base_that_cannot_be_read_is_told(tmp_path: Path, base: Path) -> None:
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "config.json").write_text("{}")
    with pytest.raises(ModelBroken, match="cannot be merged"):
        merging.merge(tmp_path, tune(tmp_path, base), str(tmp_path / "torn"))


def test_what_is_no_longer_served_can_be_forgotten(tmp_path: Path, base: Path) -> None:
    one = tune(tmp_path, base)
    place = merging.merge(tmp_path, one, str(base))
    (tmp_path / "models" / "release-mine").mkdir()  # somebody's own folder
    merging.forget(tmp_path, {"r1"})
    assert place.exists()
    merging.forget(tmp_path, {"base"})
    assert [left.name for left in (tmp_path / "models").iterdir()] == ["release-mine"]


def test_weights_that_lie_elsewhere_are_let_go_and_left_there(tmp_path: Path, base: Path) -> None:
    one = tune(tmp_path, base)
    place = merging.merge(tmp_path, one, str(base))
    elsewhere = place.rename(tmp_path / "elsewhere")
    place.symlink_to(elsewhere)
    assert merging.is_merged(tmp_path, one)
    merging.forget(tmp_path, {"base"})
    assert not place.is_symlink() and (elsewhere / merging.MARKER).is_file()


def test_the_child_merges_and_says_why_it_cannot(tmp_path: Path, base: Path) -> None:
    tune(tmp_path, base)
    command = [sys.executable, "-m", "kb.merging", str(tmp_path), "r1", str(base)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (tmp_path / "releases" / "r1" / "adapter" / "adapter_model.safetensors").write_bytes(b"x")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "adapter_model.safetensors is not what was released" in done.stderr.splitlines()[-1]


def test_importing_this_loads_no_torch() -> None:
    code = "import sys, kb.merging; assert not {'torch', 'peft'} & sys.modules.keys()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert done.returncode == 0
