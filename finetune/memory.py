"""How much memory a run holds at its peak: bytes counted from the model's shape. Pure.

A run passes two heights, and the higher one is what a machine must hold:

- when a backward pass begins: weights, the optimizer's state, gradients of the batches before it,
  everything that autograd kept of the forward pass, and the loss over the vocabulary;
- when the optimizer steps: weights, state, all gradients, and what the step computes with.

What autograd keeps was read off with `torch.autograd.graph.saved_tensors_hooks`
(tests/finetune/test_memory.py does it again); counted so are decoder layers with two norms,
attention and a gated MLP (Llama, Qwen, Mistral, SmolLM). Others come out near. Bytes a parameter
are those of arXiv 1910.02054 (gradients, Adam) and arXiv 2305.14314 (NF4 with double
quantization). Several GPUs that share a model (FSDP) are not counted: each is taken to hold all.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from finetune.settings import TrainSettings
from finetune.shape import Shape

GB = 2**30
MARGIN = 1 / 0.85
"""How much higher the true peak may be, as estimates are within 15% of it: what is to fit safely
must leave this room."""
FULL, HALF = 4, 2
"""Bytes of float32 and of bfloat16."""
NF4 = 0.5 + (1 + FULL / 256) / 64
"""Bytes of a 4-bit weight: blocks of 64 share a scale of 8 bits, 256 of these one of 32."""
LOSS_COPIES = 3
"""Log-probabilities and two gradients, float32, of each trained position over the vocabulary."""
RUNTIME = 0.7 * GB
"""Python, torch, transformers, peft and what they compute with, in resident memory."""
HEAP = 1.52
"""What a CPU's heap takes for tensors that come and go, beside their bytes."""
_GATED = 4
"""What a gated MLP keeps of its inner width: gate, its activation, up, their product."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The heaviest batch of a run: rows x length tokens, and how many positions are trained."""

    rows: int
    length: int
    trained: int
    padded: bool = True
    """Whether rows differ in length (or are packed): then attention needs a mask."""

    @property
    def tokens(self) -> int:
        return self.rows * self.length


@dataclass(frozen=True, slots=True)
class Machine:
    """What computes. On a GPU memory is the GPU's, and what libraries take is taken already."""

    kind: Literal["cpu", "cuda"]
    available: int
    """Bytes that a run may take."""
    bf16: bool
    name: str = ""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes at the peak, by what they are for."""

    parts: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.parts.values())


def estimate(shape: Shape, run: TrainSettings, batch: Batch, on: Machine) -> Estimate:
    """The peak of one process of a run whose heaviest batch is `batch`."""
    batch = _as_trained(batch, run)
    trained = trained_parameters(shape, run)
    gradients = FULL * trained
    always: dict[str, float] = {
        "libraries": RUNTIME if on.kind == "cpu" else 0,
        "weights": _weights(shape, run, on),
        "optimizer": _state(run.optim) * trained,
    }
    logits = _logits(shape, run, batch)
    heap = HEAP if on.kind == "cpu" else 1.0
    backward: dict[str, float] = {
        "gradients": gradients if run.gradient_accumulation_steps > 1 else 0,
        "activations": heap * (activations(shape, run, batch, on.bf16) + _casts(shape, run, on)),
        "logits": heap * logits,
        "workspace": heap * max(0, _layer_work(shape, run, batch, on) - logits),
    }
    # Of all matrices at once on a GPU (torch's `foreach`), of one after another elsewhere.
    stepping = trained if on.kind == "cuda" else 2 * min(trained, shape.largest)
    step: dict[str, float] = {"gradients": gradients, "workspace": FULL * stepping}
    highest = max(backward, step, key=lambda phase: sum(phase.values()))
    return Estimate({name: round(part) for name, part in (always | highest).items()})


def trained_parameters(shape: Shape, run: TrainSettings) -> int:
    match run.finetuning_type:
        case "full":
            return shape.parameters
        case "ptuning":
            # Its prompt, and the three layers that make it.
            return run.num_virtual_tokens * shape.hidden + 3 * shape.hidden**2
        case _:
            return shape.adapter(run.lora_rank, run.lora_target)


def activations(shape: Shape, run: TrainSettings, batch: Batch, bf16: bool) -> int:
    """Bytes that autograd keeps of a forward pass, without logits: for each layer and token the
    inputs of norms, matrices and attention, and the mask of a padded batch."""
    layer = batch.tokens * _token(shape, run, batch, bf16)
    if batch.padded:
        layer += batch.rows * batch.length**2 * (HALF if bf16 else FULL)
    between = batch.tokens * shape.hidden * (FULL if _wide(run, bf16) else HALF)
    if run.gradient_checkpointing:
        return shape.layers * between + layer
    # Full tuning keeps the last norm's input too; a frozen model has no gradient before its first.
    return shape.layers * layer + (2 * between if run.finetuning_type == "full" else 0)


def _token(shape: Shape, run: TrainSettings, batch: Batch, bf16: bool) -> int:
    """Bytes of one token in one layer."""
    full = run.finetuning_type == "full"
    norms = (4 if full else 2) * shape.hidden  # their inputs, and before their own weights
    statistics = FULL * (2 + shape.heads)
    keys = 2 * (shape.attention if batch.padded else shape.keyed)  # a mask has them repeated
    inner = 2 * shape.attention + keys + _GATED * shape.intermediate
    inner += 0 if full else run.lora_rank * len(shape.linear) // shape.layers
    if not bf16:
        return FULL * (norms + 2 * shape.hidden + inner) + statistics
    # Autocast keeps a copy for each of q, k, v, gate, up, and peft one more for o.
    inputs = 5 * shape.hidden + (0 if full else shape.attention)
    return FULL * norms + HALF * (inputs + inner) + statistics


def _wide(run: TrainSettings, bf16: bool) -> bool:
    """Whether layers hand on float32: autocast does with float32 weights."""
    return not bf16 or run.finetuning_type == "full"


def _as_trained(batch: Batch, run: TrainSettings) -> Batch:
    """Preferences are rows in pairs; a soft prompt makes each longer."""
    rows = 2 * batch.rows if run.stage in ("rm", "dpo") else batch.rows
    virtual = run.num_virtual_tokens if run.finetuning_type == "ptuning" else 0
    return Batch(rows, batch.length + virtual, batch.trained, batch.padded)


def _weights(shape: Shape, run: TrainSettings, on: Machine) -> float:
    width = FULL if _wide(run, on.bf16) else HALF
    if run.finetuning_type == "qlora":
        quantized = sum(inputs * outputs for inputs, outputs in shape.linear)
        whole = width * (shape.parameters - quantized)
        return NF4 * quantized + whole + _adapter(shape, run)
    # Preferences are measured against the model as it was; an adapter is simply left out for that.
    reference = run.finetuning_type == "full" and run.stage in ("dpo", "grpo")
    return width * shape.parameters * (2 if reference else 1) + _adapter(shape, run)


def _adapter(shape: Shape, run: TrainSettings) -> int:
    return 0 if run.finetuning_type == "full" else FULL * trained_parameters(shape, run)


def _state(optimizer: str) -> int:
    """Bytes a trained parameter: Adam's two moments, of 32 or 8 bits."""
    if "8bit" in optimizer:
        return 2
    return 0 if optimizer in ("sgd", "adafactor") else 8


def _casts(shape: Shape, run: TrainSettings, on: Machine) -> int:
    """Autocast keeps bfloat16 copies of float32 weights for the backward pass."""
    return HALF * shape.parameters if on.bf16 and run.finetuning_type == "full" else 0


def _logits(shape: Shape, run: TrainSettings, batch: Batch) -> int:
    """TRL computes preferences and rewards in tiles; a reward model has no vocabulary."""
    if run.stage in ("rm", "dpo", "grpo"):
        return 0
    return LOSS_COPIES * FULL * shape.vocabulary * batch.trained


def _layer_work(shape: Shape, run: TrainSettings, batch: Batch, on: Machine) -> int:
    """What the backward pass of one layer computes with, 4-bit weights made whole for it."""
    width = HALF if on.bf16 else FULL
    whole = shape.intermediate * shape.hidden if run.finetuning_type == "qlora" else 0
    return width * (_GATED * batch.tokens * shape.intermediate + 2 * whole)
