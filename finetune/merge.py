"""`finetune merge`: a finished run -> a folder with whole weights, in bfloat16 or 4 bits.

The first is for any engine, the second for programs that use transformers and have little memory.

Knows what a run leaves; nothing of releases and engines (`kb.merging` adds the weights up).
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from finetune import models, runs
from finetune.settings import TrainSettings
from kb import merging
from kb.durable import sync_tree
from kb.errors import BadConfiguration, TrainingStopped
from kb.models import locate

Quantize = Literal["none", "4bit"]
MERGED = "merged"


def merge(
    settings: TrainSettings,
    home: Path,
    report: Callable[[str], None],
    quantize: Quantize = "none",
) -> dict[str, Any]:
    """Write `merged/` (or `merged-4bit/`) into the run folder, complete or not there; returns where
    and how large. Raises BadConfiguration for a run that has no whole weights to give."""
    folder = target(settings, quantize)
    base = locate(settings.model_name_or_path, home, report=report)
    beside = folder.with_name(f".{folder.name}.writing")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir()
        if settings.finetuning_type == "full":
            shutil.copytree(settings.output_dir / "model", beside, dirs_exist_ok=True)
        else:
            merging.write(base, settings.output_dir / "adapter", beside)
        if quantize == "4bit":
            _quantize(beside)
        sync_tree(beside)
        shutil.rmtree(folder, ignore_errors=True)  # not before there is another
        beside.rename(folder)
    except (OSError, SafetensorError) as error:
        raise TrainingStopped(f"{folder}: could not be written: {error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    size = sum(path.stat().st_size for path in folder.iterdir())
    return {"folder": str(folder), "bytes": size, "quantize": quantize}


def target(settings: TrainSettings, quantize: Quantize) -> Path:
    """The folder that `merge` writes. Raises BadConfiguration as it does."""
    if not (settings.output_dir / runs.DONE).is_file():
        raise BadConfiguration(f"output_dir: {settings.output_dir} holds no finished run")
    if settings.finetuning_type == "ptuning":
        raise BadConfiguration("finetuning_type: a soft prompt has no weights to merge")
    if settings.stage == "rm":
        raise BadConfiguration("stage: a reward model answers nothing; there is nothing to serve")
    return settings.output_dir / (MERGED if quantize == "none" else f"{MERGED}-{quantize}")


def _quantize(folder: Path) -> None:
    """Replace a folder's weights by 4-bit ones, which transformers loads as they are. vLLM 0.32 has
    no bitsandbytes: no release is made of them."""
    small = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=models.four_bit(bf16=True), dtype=torch.bfloat16
    )
    for weights in folder.glob("*.safetensors*"):
        weights.unlink()
    small.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["quantization_config"]["load_in_4bit"]
