"""Two processes train as one does, with whole copies of the weights or with shards."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune.settings import TrainSettings
from finetune.train import train
from tests.finetune import forked
from tests.finetune.small_runs import run

ROOT = Path(__file__).parents[2]
SHARDED = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
}


def together(settings: TrainSettings, sharded: bool) -> dict[str, Any]:
    """Two processes, and what the first of them says at its end."""
    config = settings.output_dir / "run.yaml"
    config.write_text(yaml.safe_dump(settings.model_dump(mode="json", exclude_unset=True)))
    environment = {
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
        "VADEMECUM_HOME": str(settings.output_dir),
    }
    start = _forked if sharded else _launched
    said, errors = start(["train", str(config), "--json"], environment, settings.output_dir)
    assert errors.count("training on 12 rows") <= 1
    document = json.loads(said)
    assert isinstance(document, dict)
    return document


def _launched(
    arguments: list[str], environment: Mapping[str, str], folder: Path
) -> tuple[str, str]:
    """As users start them: `--multi_gpu` is torchrun, and what computes is said beside it."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    launch += ["--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    done = subprocess.run(
        [*launch, "--dynamo_backend", "no", "-m", "finetune.cli", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def _forked(arguments: list[str], environment: Mapping[str, str], folder: Path) -> tuple[str, str]:
    """With shards, and with what torchrun would tell each of them."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    world |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **SHARDED, **environment}
    names = [folder / f"process{rank}" for rank in range(2)]
    processes = [
        forked.start(
            *arguments,
            said=said,
            environment={"RANK": str(rank), "LOCAL_RANK": str(rank), **world},
            module="tests.finetune.sharded_on_cpu",
        )
        for rank, said in enumerate(names)
    ]
    for process, said in zip(processes, names, strict=True):
        process.join(280)
        assert process.exitcode == 0, said.with_suffix(".err").read_text()
    errors = "".join(said.with_suffix(".err").read_text() for said in names)
    return names[0].with_suffix(".out").read_text(), errors


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "said"),
    [("ptuning", "a soft prompt cannot be sharded"), ("qlora", "4-bit weights are not sharded")],
)
def test_what_cannot_be_sharded_is_said_before_the_first_step(
    tmp_path: Path, tiny_model: Path, method: str, said: str
) -> None:
    settings = run(tmp_path / "two", tiny_model, finetuning_type=method)
    with pytest.raises(AssertionError, match=rf"finetuning_type: {said}"):
        together(settings, sharded=True)
