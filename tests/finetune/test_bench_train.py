"""The benchmark of training: what it counts is right, and it has a line for every way to train."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from bench import flops, shapes
from bench.train import missed
from finetune import models, shape
from finetune.settings import Method, TrainSettings
from tests.finetune import tiny
from tests.finetune.shared import DATA, shared


@pytest.mark.parametrize(("name", "billions"), [("0.5B", 0.494), ("1.5B", 1.544), ("7B", 7.616)])
def test_a_shape_has_as_many_parameters_as_the_model_it_is_named_after(
    name: str, billions: float
) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shapes.SHAPES[name])
    assert model.num_parameters() / 1e9 == pytest.approx(billions, abs=0.001)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_needed_flops_are_those_of_the_matrix_products(tmp_path: Path, method: Method) -> None:
    folder = str(tiny.save(tmp_path, layers=12))
    keys = {"model_name_or_path": folder, "output_dir": tmp_path, "finetuning_type": method}
    model = models.load(folder, TrainSettings.model_validate(keys), bf16=False)
    ids = torch.arange(2 * 64).view(2, 64)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids).loss.backward()
    counted = counter.get_flop_counts()["Global"][torch.ops.aten.mm]
    needed = flops.needed(
        shape.of(folder), method, rank=16, tokens=ids.numel(), trained=ids.numel()
    )
    # Nothing is computed for what stands below the first adapter.
    assert counted == pytest.approx(needed, rel=0.0 if method == "full" else 0.05)


def test_a_bound_that_is_missed_is_named_with_its_row() -> None:
    good = {"model": "m", "method": "lora", "rows": "padded 12", "ratio": 1.0, "MFU": 0.5}
    assert missed([good], gpu=True) == []
    slow, idle = good | {"ratio": 0.97}, good | {"MFU": 0.44}
    assert missed([good, slow], gpu=False) == ["slower than 0.98 of TRL: m lora padded 12"]
    assert missed([idle, idle | {"method": "full"}], gpu=False) == []
    (said,) = missed([idle, idle | {"method": "full"}], gpu=True)
    assert said == "LoRA below 45% of the GPU: m lora padded 12"


@pytest.mark.slow
def test_every_method_is_measured_padded_and_packed(tiny_model: Path, tmp_path: Path) -> None:
    shared("medquad/qa_sft_2000.jsonl")
    command = [sys.executable, "-m", "bench.train", "--quick", "--model", str(tiny_model)]
    done = subprocess.run(
        [*command, "--json", str(tmp_path / "out.json")],
        # So small a model has nothing to share out among threads, which wait for each other where
        # other tests run beside.
        env={**os.environ, "VADEMECUM_DATA": str(DATA), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    asked = {(row["method"], row["rows"].split()[0]) for row in found["rows"]}
    assert asked == {(m, kind) for m in ("full", "lora", "qlora") for kind in ("padded", "packed")}
    for row in found["rows"]:
        figures = {key: value for key, value in row.items() if isinstance(value, int | float)}
        assert len(figures) == 8
        # The share of a processor that so small a model uses is below what the table shows when
        # other tests run beside it.
        assert all(value > 0 or "MFU" in key for key, value in figures.items())
        assert f"| {row['method']} | {row['rows']} |" in done.stdout
    assert len(found["costs"]) == 5
    for one in found["runs"]:
        assert one["ours"][0]["tokens"] > 0 and one["ours"][0]["utilisation"] > 0
        assert one["packing"] or one["ours"][0]["trained"] == one["trl"][0]["trained"]
