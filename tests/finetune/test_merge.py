"""Whole weights answer as base and adapter do together."""

import json
from pathlib import Path

import bitsandbytes
import pytest
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune.merge import merge
from finetune.settings import TrainSettings
from finetune.train import train
from kb.errors import BadConfiguration, VademecumError
from tests.finetune import tiny
from tests.finetune.small_runs import run


def trained(settings: TrainSettings) -> TrainSettings:
    train(settings, settings.output_dir, lambda said: None)
    return settings


def test_merged_weights_answer_as_base_and_adapter_do(tmp_path: Path, tiny_model: Path) -> None:
    settings = trained(run(tmp_path, tiny_model))
    done = merge(settings, tmp_path, print)
    assert done["folder"] == str(tmp_path / "merged")
    ids = torch.arange(30)[None]
    together = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")(ids).logits
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert merged.dtype == torch.bfloat16
    torch.testing.assert_close(merged(ids).logits.float(), together, atol=5e-2, rtol=5e-2)
    bare = AutoModelForCausalLM.from_pretrained(tiny_model)(ids).logits
    assert (together - bare).abs().max() > 0.3
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(tiny_model).chat_template


def test_the_last_good_export_stays_where_another_cannot_be_made(
    tmp_path: Path, tiny_model: Path
) -> None:
    settings = trained(run(tmp_path, tiny_model))
    merge(settings, tmp_path, print)
    (tmp_path / "adapter/adapter_model.safetensors").write_bytes(b"cut off")
    with pytest.raises(VademecumError):
        merge(settings, tmp_path, print)
    AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert not (tmp_path / ".merged.writing").exists()


def test_four_bits_are_smaller_and_say_nearly_the_same(tmp_path: Path, tiny_model: Path) -> None:
    settings = trained(run(tmp_path, tiny_model))
    whole = merge(settings, tmp_path, print)
    small = merge(settings, tmp_path, print, "4bit")
    assert small["folder"].endswith("merged-4bit")
    config = json.loads((tmp_path / "merged-4bit/config.json").read_text())
    assert config["quantization_config"]["bnb_4bit_quant_type"] == "nf4"
    assert small["bytes"] < whole["bytes"]
    ids = torch.arange(30)[None]
    one = AutoModelForCausalLM.from_pretrained(whole["folder"])(ids).logits
    # In training mode: bitsandbytes' layout for inference needs rows of 64.
    other = AutoModelForCausalLM.from_pretrained(small["folder"]).train()(ids).logits
    both = torch.stack([one.flatten().float(), other.flatten().float()]).detach()
    assert 0.9 < torch.corrcoef(both)[0, 1] < 0.9999


def test_transformers_loads_four_bits_as_they_are_and_answers(tmp_path: Path) -> None:
    model = tiny.save(tmp_path / "base", hidden=256)  # rows of 64, as inference needs
    settings = trained(run(tmp_path / "run", model, max_steps=3))
    folder = merge(settings, tmp_path, print, "4bit")["folder"]
    small = AutoModelForCausalLM.from_pretrained(folder)
    layer = small.model.layers[0].mlp.up_proj
    assert isinstance(layer, bitsandbytes.nn.Linear4bit) and layer.weight.dtype == torch.uint8
    asked = AutoTokenizer.from_pretrained(folder)("What is it?", return_tensors="pt")
    said = small.generate(**asked, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert said.shape[1] == asked["input_ids"].shape[1] + 4
    whole = AutoModelForCausalLM.from_pretrained(merge(settings, tmp_path, print)["folder"])
    both = [m(**asked).logits.flatten().float().detach() for m in (small, whole)]
    assert 0.9 < torch.corrcoef(torch.stack(both))[0, 1] < 0.9999


def test_a_fully_tuned_model_is_merged_already(tmp_path: Path, tiny_model: Path) -> None:
    settings = trained(run(tmp_path, tiny_model, finetuning_type="full"))
    merge(settings, tmp_path, print)
    ids = torch.arange(30)[None]
    one, other = (
        AutoModelForCausalLM.from_pretrained(tmp_path / name)(ids).logits
        for name in ("model", "merged")
    )
    torch.testing.assert_close(one, other)


def test_what_cannot_be_merged_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(BadConfiguration, match="holds no finished run"):
        merge(run(tmp_path, tiny_model), tmp_path, print)
    settings = trained(run(tmp_path, tiny_model, finetuning_type="ptuning"))
    with pytest.raises(BadConfiguration, match="no weights to merge"):
        merge(settings, tmp_path, print)
    assert not (tmp_path / "merged").exists()
