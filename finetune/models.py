"""Base model, tokenizer and what is trained of it: all weights, LoRA, 4-bit LoRA, or a soft prompt.

Knows settings and weights, nothing of rows or trainers. Adapters are made so that vLLM takes them:
no bias, no extra modules (but a reward model's score), plain initialisation, the base's tokenizer.
"""

from pathlib import Path
from typing import Any

import torch
from peft import (
    LoraConfig,
    PeftConfig,
    PeftModel,
    PromptEncoderConfig,
    TaskType,
    get_peft_model,
)
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from finetune import device, vocabulary, weights
from finetune.settings import TrainSettings
from kb.errors import BadConfiguration, one_line

MOST_RANK = 512
"""vLLM's largest --max-lora-rank."""
_REPACKS = "support_avx512bf16_for_cpu"
Model = PreTrainedModel | PeftModel


def check(settings: TrainSettings) -> None:
    """Raises BadConfiguration for what no engine would take, before anything is loaded."""
    if settings.finetuning_type in ("lora", "qlora") and settings.lora_rank > MOST_RANK:
        raise BadConfiguration(
            f"lora_rank: {settings.lora_rank} is more than the {MOST_RANK} that vLLM serves"
        )
    if settings.finetuning_type == "ptuning" and settings.stage == "grpo":
        raise BadConfiguration("finetuning_type: stage grpo cannot train a soft prompt; take lora")
    if settings.finetuning_type == "full" and settings.adapter_name_or_path:
        raise BadConfiguration("adapter_name_or_path: merge it first, full tuning takes no adapter")


def tokenizer(folder: str) -> PreTrainedTokenizerBase:
    """The base's own, padding on the right. Without a padding token it pads with its end token,
    in memory only: what is saved is never changed. Raises as `vocabulary.load` does."""
    made = vocabulary.load(folder)
    if made.pad_token is None:
        made.pad_token = made.eos_token
    made.padding_side = "right"
    return made


def load(folder: str, settings: TrainSettings, *, bf16: bool, pad: int | None = None) -> Model:
    """The model of a run with its trainable part, on no particular device yet.

    Full tuning keeps float32 weights and computes in bfloat16; a frozen base is bfloat16, as it
    is served. Raises ModelBroken as `weights.read` does.
    """
    kind = AutoModelForSequenceClassification if settings.stage == "rm" else AutoModelForCausalLM
    frozen = settings.finetuning_type != "full"
    options: dict[str, Any] = {
        "dtype": torch.bfloat16 if bf16 and frozen else torch.float32,
        "attn_implementation": device.attention(bf16),
    }
    if settings.stage == "rm":
        options["num_labels"] = 1
    if settings.finetuning_type == "qlora":
        options["quantization_config"] = four_bit(bf16)
    base = weights.read(kind, folder, new_head=settings.stage == "rm", **options)
    if settings.finetuning_type == "qlora":
        _keep_layout(base)
        _let_go_of_files(base)
    base.config.use_cache = False
    if pad is not None:
        base.config.pad_token_id = pad
    return adapt(base, settings) if frozen else base


def four_bit(bf16: bool) -> BitsAndBytesConfig:
    """QLoRA's: 4-bit normal floats, their scales quantized too (arXiv 2305.14314)."""
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if bf16 else torch.float32,
    )


def _keep_layout(base: PreTrainedModel) -> None:
    """On a CPU with AVX512_BF16, bitsandbytes repacks 4-bit weights for inference at the first
    evaluation, and what is packed so has no gradient (and must have rows of 64)."""
    for module in base.modules():
        if hasattr(module, _REPACKS):
            setattr(module, _REPACKS, False)


def _let_go_of_files(base: PreTrainedModel) -> None:
    """On a CPU, what is not made 4-bit may be a view of the mapped files, and one view keeps the
    whole file resident: with it QLoRA took as much memory as LoRA."""
    for tensor in (*base.parameters(), *base.buffers()):
        if tensor.is_floating_point() and tensor.device.type == "cpu":
            tensor.data = tensor.data.clone()


def adapt(base: PreTrainedModel, settings: TrainSettings) -> PeftModel:
    """A fresh adapter, or the one of `adapter_name_or_path` to go on with."""
    if settings.adapter_name_or_path:
        return _continued(base, settings.adapter_name_or_path, settings)
    try:
        model = get_peft_model(base, adapter_config(base, settings))
    except ValueError as error:
        raise BadConfiguration(f"lora_target: {one_line(error)}") from error
    assert isinstance(model, PeftModel)
    return model


def adapter_config(base: PreTrainedModel, settings: TrainSettings) -> PeftConfig:
    task = TaskType.SEQ_CLS if settings.stage == "rm" else TaskType.CAUSAL_LM
    if settings.finetuning_type == "ptuning":
        return PromptEncoderConfig(
            task_type=task,
            num_virtual_tokens=settings.num_virtual_tokens,
            encoder_hidden_size=base.config.hidden_size,
        )
    target = settings.lora_target
    names = [name.strip() for name in target.split(",") if name.strip()]
    return LoraConfig(
        task_type=task,
        r=settings.lora_rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.lora_dropout,
        target_modules="all-linear" if target == "all" else names,
    )


def _continued(base: PreTrainedModel, adapter: Path, settings: TrainSettings) -> PeftModel:
    try:
        model = PeftModel.from_pretrained(base, str(adapter), is_trainable=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise BadConfiguration(f"adapter_name_or_path: {adapter}: {one_line(error)}") from error
    held = model.active_peft_config
    for key, is_, wanted in (
        ("lora_rank", getattr(held, "r", None), settings.lora_rank),
        ("lora_alpha", getattr(held, "lora_alpha", None), settings.alpha),
    ):
        # What is trained is the adapter's, and memory is counted by the configuration.
        if settings.finetuning_type != "ptuning" and is_ != wanted:
            raise BadConfiguration(f"{key}: {wanted}, and {adapter} has {is_}: write {key}: {is_}")
    return model


def sizes(model: Model) -> tuple[int, int]:
    """All parameters (4-bit ones count as two each byte) and the trained ones."""
    if isinstance(model, PeftModel):
        trained, every = model.get_nb_trainable_parameters()
        return int(every), int(trained)
    every = model.num_parameters()
    return every, model.num_parameters(only_trainable=True)
