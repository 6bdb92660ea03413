"""`finetune train`: one run from top to bottom, from configuration to run.json.

Knows the order of things; what a stage, a model or a checkpoint is stands in the modules it calls.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerBase,
    Trainer,
    set_seed,
)

from finetune import device, lengths, models, outlook, runs, shape, stages, trainset, whole
from finetune.checkpoints import best, state_of
from finetune.exhausted import is_out_of_memory
from finetune.parts import Parts
from finetune.patience import is_over
from finetune.progress import Progress
from finetune.render import Ledger, Renderer
from finetune.settings import TrainSettings
from finetune.trainset import TrainSet
from kb.durable import sync_tree
from kb.errors import BadConfiguration, TrainingStopped
from kb.merging import copy_tokenizer
from kb.models import locate

Report = Callable[[str], None]
_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def train(settings: TrainSettings, home: Path, report: Report) -> dict[str, Any]:
    """Train, or go on from the last whole checkpoint; returns what run.json says.

    `home` is where bundled weights are unpacked. Raises BadConfiguration, BadData, ModelBroken
    before anything is computed, WriterBusy if another process has the run's folder, TrainingStopped
    when memory or disk run out.
    """
    begun = time.monotonic()
    main = os.environ.get("RANK", "0") == "0"  # torchrun and accelerate set it
    report = report if main else _silent
    device.take(os.environ)
    models.check(settings)
    rows = trainset.load(settings)
    wanted = runs.decisive(settings, rows.sha256, device.processes(os.environ))
    if (done := runs.finished(settings.output_dir, wanted)) is not None:
        report(f"{settings.output_dir} is finished already")
        return done
    with runs.alone(settings.output_dir) if main else nullcontext():
        document = _train(settings, rows, wanted, home, report, main=main)
        if main:
            document["seconds"] = round(time.monotonic() - begun, 1)
            runs.write_json(settings.output_dir / runs.DONE, document)
    return document


def _train(
    settings: TrainSettings,
    rows: TrainSet,
    wanted: Mapping[str, Any],
    home: Path,
    report: Report,
    *,
    main: bool,
) -> dict[str, Any]:
    """What is left of the run; returns what run.json is to say, in the first process."""
    checkpoint = runs.resumed(settings, wanted)
    report(f"going on from {checkpoint}" if checkpoint else f"training on {len(rows.train)} rows")

    set_seed(settings.seed)
    bf16 = device.has_bf16() if settings.bf16 is None else settings.bf16
    folder = locate(settings.model_name_or_path, home, report=report)
    whole.check(folder)
    tokenizer = models.tokenizer(folder)
    _must_fit(settings, rows, folder, tokenizer)
    with _in_memory():
        model = models.load(folder, settings, bf16=bf16, pad=tokenizer.pad_token_id)
        every, trained = models.sizes(model)
        report(f"{trained:,} of {every:,} parameters are trained, on {device.name()}")
        progress = Progress()
        parts = Parts(settings, rows, model, tokenizer, bf16)
        trainer, ledger = stages.prepare(parts, progress)
        if main:
            runs.write_json(settings.output_dir / runs.BEGUN, wanted)
        _go(trainer, settings, checkpoint)

    if not main:
        return {}
    runs.plot(
        runs.losses(trainer.state.log_history),
        f"{settings.output_dir.name} ({settings.stage})",
        _curves(settings),
    )
    return {
        **_what(settings, trainer, folder, checkpoint),
        "parameters": {"all": every, "trained": trained},
        "rows": _which(rows.sha256, ledger),
        "data": rows.account,
        "tokens_seen": int(trainer.state.num_input_tokens_seen),
        "tokens_per_second": round(progress.tokens_per_second, 1),
        **_where(trainer, bf16),
        "settings": settings.model_dump(mode="json"),
    }


def _must_fit(
    settings: TrainSettings, rows: TrainSet, folder: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Raises BadConfiguration for a run that this machine cannot hold. On a GPU running out is an
    error that says so; a process on a CPU the kernel ends without a word. FSDP is not counted."""
    on = device.machine(settings.bf16)
    if on.kind != "cpu" or "ACCELERATE_USE_FSDP" in os.environ:
        return
    renderer = Renderer(tokenizer, chat=any(row.messages for row in rows.train))
    pairs = settings.stage in trainset.PAIRED
    every = [(row, renderer.row(row, pairs=pairs)) for row in rows.train]
    fitting = [both for both in every if both[1].longest <= settings.cutoff_len]
    if not fitting:
        return
    known = shape.of(folder)
    kept, rendered = [row for row, _ in fitting], [one for _, one in fitting]
    sized = lengths.sized(kept, rendered, renderer, settings)
    seen = outlook.of(settings, known, sized, on)
    if not seen.enough:
        raise BadConfiguration(outlook.too_little(settings, known, seen))


def _go(trainer: Trainer, settings: TrainSettings, checkpoint: Path | None) -> None:
    """To the end. A run that had come to it lacks its result only: transformers, handed its last
    checkpoint, would take another step."""
    if checkpoint and runs.is_known(checkpoint):
        state = state_of(checkpoint)
        if is_over(state, trainer.args, settings.patience):
            trainer.state = state
            return
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


def _what(
    settings: TrainSettings, trainer: Trainer, folder: str, checkpoint: Path | None
) -> dict[str, Any]:
    """What was done, and what came of it; the result is written here."""
    state = trainer.state
    chosen = best(settings.output_dir, state)
    result = _result(settings, chosen, folder)
    return {
        "format": 1,
        "model": settings.model_name_or_path,
        "stage": settings.stage,
        "finetuning_type": settings.finetuning_type,
        "result": result.name,
        "steps": state.global_step,
        "epochs": round(state.epoch or 0.0, 3),
        "best_step": state_of(chosen).global_step,
        "stopped_early": state.global_step < state.max_steps,
        "resumed_from": checkpoint.name if checkpoint else None,
        "losses": {
            name: {"first": points[0][1], "last": points[-1][1], "best": min(v for _, v in points)}
            for name, points in runs.losses(state.log_history).items()
        },
    }


def _which(sha256: str, ledger: Ledger) -> dict[str, Any]:
    """The rows that were trained on, and those that losses were measured on."""
    return {
        "trained": ledger.rendered,
        "too_long": ledger.too_long,
        "held_out": ledger.held_out,
        "tokens": ledger.tokens,
        "trained_tokens": ledger.trained_tokens,
        "longest": ledger.longest,
        "sha256": sha256,
    }


def _where(trainer: Trainer, bf16: bool) -> dict[str, Any]:
    """On what it ran, and with which code."""
    return {
        "peak_memory_mb": round(device.peak_mb()),
        "device": device.name(),
        "processes": trainer.args.world_size,
        "distributed": trainer.accelerator.distributed_type.value,
        "bf16": bf16,
        "versions": runs.versions(),
        "revision": runs.revision(),
    }


def _silent(text: str) -> None:
    """Of several processes, one speaks."""


def _curves(settings: TrainSettings) -> Path:
    return settings.output_dir / runs.CURVES


def _result(settings: TrainSettings, best: Path, base: str) -> Path:
    """`adapter/` or `model/` of a run, complete or not there, in bfloat16, as it is served. The
    tokenizer is the base's."""
    full = settings.finetuning_type == "full"
    folder = settings.output_dir / ("model" if full else "adapter")
    beside = folder.with_name(f".{folder.name}.writing")
    try:
        for path in (beside, folder):
            shutil.rmtree(path, ignore_errors=True)
        beside.mkdir()
        if full:
            rm = settings.stage == "rm"
            kind = AutoModelForSequenceClassification if rm else AutoModelForCausalLM
            kind.from_pretrained(best, dtype=torch.bfloat16).save_pretrained(beside)
            copy_tokenizer(base, beside)
        else:
            shutil.copyfile(best / _CONFIG, beside / _CONFIG)
            weights = load_file(best / _WEIGHTS)
            halved = {name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}
            save_file(halved, beside / _WEIGHTS, metadata={"format": "pt"})
        sync_tree(beside)
        beside.rename(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise TrainingStopped(
            f"{folder}: could not be written: {error}; {best.name} is whole: free some space and"
            " start again"
        ) from error
    return folder


@contextmanager
def _in_memory() -> Iterator[None]:
    """Says what of a run to change where memory runs out."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingStopped(
            f"too little memory (peak {device.peak_mb():.0f} MB): lower"
            " per_device_train_batch_size (and raise gradient_accumulation_steps), lower"
            " cutoff_len, set gradient_checkpointing: true, or finetuning_type: qlora"
        ) from error
