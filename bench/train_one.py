"""One training run, measured: this project's trainer, or the shortest TRL script with its settings.

Both get the same rows as the same tokens and labels, in batches of like length; nothing is saved or
evaluated. The first step is a warm-up. Runs in a process of its own (see bench.train).
"""

import io
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from datasets import Dataset, disable_progress_bars
from peft import LoraConfig
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback
from transformers.utils.logging import disable_progress_bar
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from bench import flops
from finetune import batches, device, models, shape, stages, trainset
from finetune.parts import Parts
from finetune.progress import Progress
from finetune.render import Renderer
from finetune.settings import Method, TrainSettings

Way = Literal["ours", "trl"]
WARM_UP = 1
"""Steps that are not measured."""


@dataclass(frozen=True, slots=True)
class Case:
    """What both ways are asked to do."""

    folder: str
    """The model's."""
    rows: Path
    """train.jsonl, taken once."""
    output: Path
    method: Method
    packing: bool
    batch: int
    cutoff: int
    peak: float
    """FLOPs that the processor can do in a second."""
    rank: int = 16
    seed: int = 42


@dataclass(frozen=True, slots=True)
class Measured:
    """Of all steps but the first."""

    tokens: int
    """Without padding."""
    slots: int
    """With padding."""
    trained: int
    """Tokens with a label."""
    seconds: float
    processor_seconds: float
    peak_mb: float
    """Of this process: on the GPU where there is one, else resident."""
    utilisation: float
    """Model FLOPs over the processor's, see bench.flops."""


def measure(case: Case, way: Way) -> Measured:
    """Train, in this process. Raises what the libraries raise."""
    disable_progress_bar()  # type: ignore[no-untyped-call]
    disable_progress_bars()
    bf16 = device.has_bf16()
    settings = _settings(case, bf16)
    set_seed(case.seed)
    tokenizer = models.tokenizer(case.folder)
    trainer = (_ours if way == "ours" else _trl)(settings, case.folder, tokenizer)
    watch = Stopwatch()
    counts = _counted(trainer, tokenizer.pad_token_id)
    trainer.add_callback(watch)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    tokens, slots, trained = (sum(int(one[n]) for one in counts[WARM_UP:]) for n in range(3))
    model = shape.of(case.folder)
    done = flops.needed(model, case.method, case.rank, tokens, trained)
    return Measured(
        tokens,
        slots,
        trained,
        watch.wall,
        watch.processor,
        device.peak_mb(),
        done / watch.wall / case.peak,
    )


def _settings(case: Case, bf16: bool) -> TrainSettings:
    return TrainSettings.model_validate(
        {
            "model_name_or_path": case.folder,
            "dataset": case.rows,
            "output_dir": case.output,
            "finetuning_type": case.method,
            "packing": case.packing,
            "per_device_train_batch_size": case.batch,
            "gradient_accumulation_steps": 1,
            "cutoff_len": case.cutoff,
            "lora_rank": case.rank,
            "num_train_epochs": 1,
            "bf16": bf16,
            "seed": case.seed,
        }
    )


def _ours(settings: TrainSettings, folder: str, tokenizer: PreTrainedTokenizerBase) -> Trainer:
    """As finetune.train builds it."""
    bf16 = bool(settings.bf16)
    rows = trainset.load(settings)
    model = models.load(folder, settings, bf16=bf16, pad=tokenizer.pad_token_id)
    parts = Parts(settings, rows, model, tokenizer, bf16)
    trainer, _ = stages.prepare(parts, Progress(out=io.StringIO()))
    return trainer


def _trl(settings: TrainSettings, folder: str, tokenizer: PreTrainedTokenizerBase) -> Trainer:
    """What a page of TRL's documentation shows, with our settings where its own differ."""
    bf16 = bool(settings.bf16)
    rows, _ = trainset.tokens(trainset.load(settings).train, Renderer(tokenizer), settings)
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.bfloat16 if bf16 and settings.finetuning_type != "full" else torch.float32,
        attn_implementation=device.attention(bf16),
        quantization_config=models.four_bit(bf16) if settings.finetuning_type == "qlora" else None,
    )
    lora = LoraConfig(r=settings.lora_rank, lora_alpha=settings.alpha, target_modules="all-linear")
    args = SFTConfig(
        output_dir=str(settings.output_dir),
        per_device_train_batch_size=settings.per_device_train_batch_size,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.lr_scheduler_type,
        warmup_steps=settings.warmup_ratio,
        num_train_epochs=settings.num_train_epochs,
        optim=settings.optim,
        bf16=bf16,
        use_cpu=not torch.cuda.is_available(),
        max_length=settings.cutoff_len,
        packing=settings.packing,
        train_sampling_strategy="group_by_length",
        gradient_checkpointing=settings.gradient_checkpointing,
        use_liger_kernel=device.has_liger(),
        dataloader_pin_memory=torch.cuda.is_available(),
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=settings.seed,
    )
    return SFTTrainer(
        model=model,
        args=args,
        train_dataset=Dataset.from_list(list(batches.examples(rows))),
        processing_class=tokenizer,
        peft_config=None if settings.finetuning_type == "full" else lora,
    )


class Stopwatch(TrainerCallback):
    """Wall and processor seconds from the end of the warm-up to the end of the last step: loading
    of batches and logging are in it, the last save is not, and is not done."""

    def __init__(self) -> None:
        self._begun = (0.0, 0.0)
        self.wall = self.processor = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_save = False
        if state.global_step == WARM_UP:
            self._begun = _now()
        elif state.global_step == state.max_steps:
            wall, processor = _now()
            self.wall, self.processor = wall - self._begun[0], processor - self._begun[1]


def _now() -> tuple[float, float]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


def _counted(trainer: Trainer, pad: int) -> list[tuple[Tensor | int, ...]]:
    """Every batch's tokens, slots and labels, as it is trained; the counts stay where the batch is,
    so that nothing waits for them."""
    counts: list[tuple[Tensor | int, ...]] = []
    step: Callable[..., Tensor] = trainer.training_step

    def counted(model: Any, inputs: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> Tensor:
        ids, labels = inputs["input_ids"], inputs["labels"]
        if "attention_mask" in inputs:
            real = inputs["attention_mask"].sum()
        else:
            real = ((ids != pad) | (inputs["position_ids"] != 0)).sum()
        counts.append((real, ids.numel(), (labels[:, 1:] != -100).sum()))
        return step(model, inputs, *args, **kwargs)

    trainer.training_step = counted  # type: ignore[method-assign]
    return counts
