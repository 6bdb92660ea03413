"""Two processes train as one does, with whole copies of the weights or with shards."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune.settings import TrainSettings
from finetune.train import train
from tests.finetune.small_runs import run

ROOT = Path(__file__).parents[2]
SHARDED = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
}


def together(settings: TrainSettings, sharded: bool) -> dict[str, Any]:
    config = settings.output_dir / "run.yaml"
    config.write_text(yaml.safe_dump(settings.model_dump(mode="json", exclude_unset=True)))
    module = "tests.finetune.sharded_on_cpu" if sharded else "finetune.cli"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    environment = {
        **os.environ,
        **(SHARDED if sharded else {}),
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
        "VADEMECUM_HOME": str(settings.output_dir),
    }
    done = subprocess.run(
        [*torchrun, "--nproc-per-node", "2", "-m", module, "train", str(config), "--json"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("training on 12 rows") <= 1
    document = json.loads(done.stdout)
    assert isinstance(document, dict)
    return document


@pytest.mark.slow
@pytest.mark.parametrize(("method", "sharded"), [("lora", False), ("full", True), ("lora", True)])
def test_two_processes_train_as_one_does(
    tmp_path: Path, tiny_model: Path, method: str, sharded: bool
) -> None:
    keys = {"finetuning_type": method, "per_device_train_batch_size": 2}
    one = run(tmp_path / "one", tiny_model, **keys, gradient_accumulation_steps=2)
    two = run(tmp_path / "two", tiny_model, **keys, gradient_accumulation_steps=1)
    alone = train(one, tmp_path, lambda said: None)
    done = together(two, sharded)
    assert done["processes"] == 2
    assert done["distributed"] == ("FSDP" if sharded else "MULTI_CPU")
    assert done["tokens_seen"] == alone["tokens_seen"]
    for curve in ("train", "domain", "general"):
        assert done["losses"][curve] == pytest.approx(alone["losses"][curve], rel=1e-3)
    if method == "full":  # and it goes on from its checkpoint
        (two.output_dir / "run.json").unlink()
        shutil.rmtree(two.output_dir / "checkpoint-9")
        again = together(two, sharded)
        assert again["resumed_from"] == "checkpoint-6"
        assert again["losses"]["train"] == pytest.approx(done["losses"]["train"], rel=1e-5)
