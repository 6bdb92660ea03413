"""Whether vLLM will take an adapter: told before hours of training, from its configuration. Pure.

What vLLM 0.32 refuses stands in docs/finetuning.md; it says so only when an adapter is loaded.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from finetune.problems import Problem
from finetune.settings import TrainSettings

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values of --max-lora-rank. An adapter's rank may not be above it."""
_INITS = ("pissa", "olora", "loftq", "corda", "eva")
_HEADS = ("lm_head", "embed_tokens", "wte", "embed_out")
_CHECK = "vllm"


def settings(run: TrainSettings) -> Iterator[Problem]:
    """What the adapter of this run would be refused for."""
    if run.stage == "rm" or run.finetuning_type == "full":
        return
    if run.finetuning_type == "ptuning":
        yield _serious("vLLM serves no P-tuning; take lora")
        return
    yield from _rank(run.lora_rank)
    targets = [name.strip() for name in run.lora_target.split(",")]
    for name in targets:
        if name.split(".")[-1] in _HEADS:
            yield _serious(f"LoRA on {name} is refused; take lora_target: all")


def adapter(config: Mapping[str, Any], *, tokens: int, vocabulary: int) -> Iterator[Problem]:
    """What an existing adapter will be refused for: its adapter_config.json, the tokens that its
    tokenizer knows and those that the base has rows for."""
    if config.get("peft_type", "LORA") != "LORA":
        yield _serious(f"vLLM serves LoRA, not {config['peft_type']}")
        return
    ranks = [config.get("r", 8), *(config.get("rank_pattern") or {}).values()]
    yield from _rank(max(ranks))
    if config.get("use_dora"):
        yield _serious("DoRA is refused")
    if config.get("lora_bias") or config.get("bias", "none") != "none":
        yield _serious("an adapter with a bias is refused")
    init = config.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower().startswith(_INITS):
        yield _serious(f"weights initialised with {init} change the base: refused")
    extra = [
        name for name in config.get("modules_to_save") or () if name not in ("classifier", "score")
    ]
    if extra:
        yield _serious(f"modules_to_save {', '.join(extra)}: refused")
    targets = config.get("target_modules") or ()
    heads = [t for t in targets if t in _HEADS] if not isinstance(targets, str) else []
    if heads:
        yield _serious(f"LoRA on {', '.join(heads)} is refused")
    if tokens > vocabulary:
        yield _serious(f"{tokens - vocabulary} added tokens: vLLM uses the base's tokenizer")


def _rank(rank: int) -> Iterator[Problem]:
    if rank > RANKS[-1]:
        yield _serious(f"rank {rank} is above {RANKS[-1]}, the highest that vLLM serves")
    elif rank not in RANKS:
        above = next(r for r in RANKS if r > rank)
        text = f"rank {rank} is none of vLLM's; it takes the room of {above} (--max-lora-rank)"
        yield Problem("warning", _CHECK, text)


def _serious(text: str) -> Problem:
    return Problem("serious", _CHECK, text)
