"""What each practice rule looks at: pure functions of the facts; a complaint, or None.

Named after the ids of `finetune.rules`, in its order. Measures nothing itself.
"""

from collections.abc import Collection
from pathlib import Path

from finetune.facts import Facts

MUCH = 10_000
"""Rows of a field from which their quality is asked about."""
NOISE_BORNE = 0.01
SERIOUS = 0.2
"""Share of noise, or of rows in languages that the model does not write, that spoils a run."""
MIN_GENERAL = 0.1
REPLAY = (5.0, 10.0)
MOST_EPOCHS = 3.0
ONE_ABILITY = 0.8
HIGH_RANK = 128
_PREFERENCES = ("rm", "dpo", "grpo")


def knowledge(facts: Facts) -> str | None:
    if facts.settings.stage == "pt" or not facts.counts.rows or facts.counts.with_passages:
        return None
    return (
        "no row shows passages, so answering from them is not trained; add `data.knowledge`"
        " (`finetune data` makes rows with the serving retriever)"
    )


def quality(facts: Facts) -> str | None:
    rows = facts.counts.roles.get("domain", 0)
    if rows < MUCH:
        return None
    if facts.noisy is None or facts.duplicates is None:
        return f"{rows} rows of the field, and nobody looked at their quality"
    poor = (facts.noisy + facts.duplicates) / rows
    return f"{poor:.0%} of {rows} rows are noise or repeat others" if poor >= 0.05 else None


def mix(facts: Facts) -> str | None:
    if facts.settings.stage == "pt" or not facts.counts.roles.get("domain"):
        return None
    share = facts.counts.share("general") + facts.counts.share("replay")
    if share >= MIN_GENERAL:
        return None
    return f"{share:.0%} of the rows are general; below {MIN_GENERAL:.0%} a model tends to forget"


def replay(facts: Facts) -> str | None:
    domain = facts.counts.roles.get("domain", 0)
    if facts.settings.stage != "pt" or not domain:
        return None
    times = facts.counts.roles.get("replay", 0) / domain
    low, high = REPLAY
    if low <= times <= high:
        return None
    return f"replayed text is {times:.1f} times the field's, not {low:.0f} to {high:.0f}"


def noise(facts: Facts) -> str | None:
    if not facts.noisy or not facts.counts.rows:
        return None
    share = facts.noisy / facts.counts.rows
    return f"{facts.noisy} rows ({share:.1%}) are noise" if share > NOISE_BORNE else None


def spoiled(facts: Facts) -> bool:
    """Whether noise is no blemish any more."""
    return (facts.noisy or 0) > SERIOUS * facts.counts.rows


def fit(facts: Facts) -> str | None:
    return f"{facts.unlike} rows do not fit the base model" if facts.unlike else None


def abilities(facts: Facts) -> str | None:
    said, held = [], facts.counts.abilities
    if len(held) > 1 and not facts.settings.data.mix:
        name, most = max(held.items(), key=lambda item: item[1])
        if (share := most / sum(held.values())) > ONE_ABILITY:
            said.append(f"{name} is {share:.0%} of the rows and no ratio was chosen (`data.mix`)")
    if held.get("maths") and not facts.settings.eval.maths:
        said.append("rows teach maths and nothing measures it (`eval.maths`)")
    return "; ".join(said) or None


def epochs(facts: Facts) -> str | None:
    said, times = [], facts.epochs
    if times > MOST_EPOCHS:
        said.append(f"{times:.3g} epochs over the same rows")
    if not facts.settings.patience or not facts.settings.data.val_size:
        said.append("no held-out loss stops the run (`patience`, `data.val_size`)")
    return "; ".join(said) or None


def price(facts: Facts) -> str | None:
    judged = facts.settings.eval
    bought = bool(judged.questions or judged.grounding)
    paid = bool(judged.choice or judged.maths or judged.text)
    if bought and paid:
        return None
    missing = [] if bought else ["the field (`eval.questions`, `grounding`)"]
    missing += [] if paid else ["general abilities (`eval.choice`, `maths`, `text`)"]
    return f"nothing measures {' or '.join(missing)}"


def stages(facts: Facts) -> str | None:
    run = facts.settings
    if run.stage not in _PREFERENCES or run.adapter_name_or_path:
        return None
    if run.finetuning_type == "full" and Path(run.model_name_or_path).is_dir():
        return None  # whole weights, as a run of stage sft leaves them
    return f"stage {run.stage} begins at the base model, not at a run of stage sft"


def method(facts: Facts) -> str | None:
    kind, size = facts.settings.finetuning_type, facts.billions
    if kind == "ptuning":
        return "P-tuning is the last resort (and vLLM does not serve it): take lora"
    if size is None:
        return None
    if kind == "full" and size > 13:
        return f"full tuning of {size:.0f} billion parameters; above 13 take lora or qlora"
    if kind != "full" and size <= 7 and facts.full_fits:
        return "full tuning would fit; the rule prefers it, published figures do not"
    return None


def all_linear(facts: Facts) -> str | None:
    run = facts.settings
    if run.finetuning_type not in ("lora", "qlora") or is_all(run.lora_target, facts.linear):
        return None
    return f"LoRA on {run.lora_target} only"


def is_all(target: str, linear: Collection[str]) -> bool:
    """Whether a `lora_target` is all linear layers, also where each is named."""
    named = {name.strip() for name in target.split(",")}
    return target == "all" or (bool(linear) and named >= set(linear))


def alpha(facts: Facts) -> str | None:
    run = facts.settings
    if run.finetuning_type not in ("lora", "qlora") or run.alpha == 2 * run.lora_rank:
        return None
    return f"alpha {run.alpha} at rank {run.lora_rank}"


def qlora_cost(facts: Facts) -> str | None:
    if facts.settings.finetuning_type != "qlora" or not facts.lora_fits:
        return None
    return "LoRA would fit; QLoRA saves memory that is not needed, for 40 to 50% more time"


def optimizer(facts: Facts) -> str | None:
    run = facts.settings
    full = run.finetuning_type == "full"
    heavy = full or (run.finetuning_type in ("lora", "qlora") and run.lora_rank >= HIGH_RANK)
    saving = saves(run.optim)
    if heavy and not saving and (facts.full_fits if full else facts.lora_fits) is False:
        return f"{run.optim} keeps eight bytes a trained parameter; adamw_bnb_8bit keeps two"
    if not heavy and saving:
        return f"{run.optim} saves next to nothing here; adamw_torch_fused is as good"
    return None


def saves(optimizer: str) -> bool:
    """Whether it keeps less than Adam's two moments of 32 bits."""
    return "8bit" in optimizer or optimizer in ("sgd", "adafactor")


def base_by_field(facts: Facts) -> str | None:
    if not facts.languages:
        return None
    foreign = {k: n for k, n in facts.counts.languages.items() if k not in facts.languages}
    if not foreign:
        return None
    held = ", ".join(f"{n} {language}" for language, n in sorted(foreign.items()))
    return f"the model writes {', '.join(facts.languages)}; there are rows in others: {held}"


def foreign(facts: Facts) -> bool:
    """Whether many rows are in languages that the model does not write."""
    held = facts.counts.languages
    strange = sum(count for language, count in held.items() if language not in facts.languages)
    return bool(facts.languages) and strange > SERIOUS * facts.counts.rows


def quantized(facts: Facts) -> str | None:
    size = facts.billions
    if facts.settings.finetuning_type != "qlora" or size is None or size >= 10:
        return None
    return f"4-bit weights of {size:.1f} billion parameters may cost ability: eval tells"


def seeds(facts: Facts) -> str | None:
    if facts.settings.eval.seeds:
        return None
    return "one seed: a difference may be chance (`eval.seeds`)"
