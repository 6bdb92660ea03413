"""What to do with these rows, this model, this machine: facts -> lines, each with its rule. Pure.

A line says what is advised; where the configuration has something else, that too. Where published
figures disagree with the rule, the line says so: rules and evidence stand in `finetune.rules`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from finetune.checks import MIN_GENERAL, REPLAY, is_all, replay, saves
from finetune.facts import Facts
from finetune.outlook import Outlook, gb
from finetune.rules import by_id
from finetune.settings import Method

PREFER_FULL, PREFER_ADAPTER = 7, 13
"""Billions of parameters: up to the first the rule has full tuning, above the second an adapter."""
FEW, MANY = 1_000, 10_000
"""Rows below which three epochs do, and from which one does."""


@dataclass(frozen=True, slots=True)
class Advice:
    """`configured` is what the configuration says, where that is something else."""

    about: str
    value: str
    why: str
    rule: str
    configured: str | None = None

    @property
    def disagrees(self) -> bool:
        """Whether published figures disagree with the rule; its evidence has them."""
        return "**Disagrees" in by_id(self.rule).evidence


def advise(facts: Facts, seen: Outlook) -> list[Advice]:
    """All lines but that of time, which nobody knows before it is measured."""
    made: Sequence[Callable[[Facts, Outlook], Advice | None]] = (
        base,
        method,
        memory,
        linear,
        alpha,
        stages,
        mix,
        epochs,
        optimizer,
        judging,
        seeds,
    )
    return [line for make in made if (line := make(facts, seen)) is not None]


def base(facts: Facts, seen: Outlook) -> Advice:
    size = f"{(facts.parameters or 0) / 1e6:,.0f} M parameters"
    writes = f"; writes {', '.join(facts.languages)}" if facts.languages else ""
    held = ", ".join(f"{name} {count}" for name, count in facts.counts.languages.items())
    rows = f"; the rows: {held}" if held else ""
    return Advice("base", facts.settings.model_name_or_path, f"{size}{writes}{rows}", "base")


def choose(billions: float, full_fits: bool, lora_fits: bool) -> Method:
    """The method as the rule has it. Between 7 and 13 billion it says nothing: an adapter costs
    less there, and 4 bits cost ability, so they come last."""
    if billions <= PREFER_FULL and full_fits:
        return "full"
    return "lora" if lora_fits else "qlora"


def method(facts: Facts, seen: Outlook) -> Advice:
    billions = facts.billions or 0.0
    advised = choose(billions, seen.fits("full"), seen.fits("lora"))
    have, need = gb(seen.machine.available), gb(seen.needs[advised].total)
    why = {
        "full": f"it fits ({need} of {have}), and up to {PREFER_FULL} billion parameters the rule"
        f" prefers it; lora would take {gb(seen.needs['lora'].total)}, and published figures have"
        " it as good or better: keep it if eval says so",
        "lora": f"full tuning would take {gb(seen.needs['full'].total)} of {have}"
        if billions <= PREFER_FULL
        else f"above {PREFER_ADAPTER} billion parameters an adapter"
        if billions > PREFER_ADAPTER
        else "the rule is silent from 7 to 13 billion parameters, and an adapter costs less",
        "qlora": f"lora would take {gb(seen.needs['lora'].total)} of {have}: a third less memory"
        " for 40 to 50% more time",
    }[advised]
    rule = "qlora" if advised == "qlora" else "method"
    return _line("method", advised, why, rule, facts.settings.finetuning_type)


def memory(facts: Facts, seen: Outlook) -> Advice:
    parts = ", ".join(f"{name} {gb(size)}" for name, size in seen.run.parts.items() if size)
    each = ", ".join(f"{name} {gb(one.total)}" for name, one in seen.needs.items())
    return Advice(
        "memory",
        f"{gb(seen.run.total)} of {gb(seen.machine.available)} free",
        f"batches of up to {seen.batch.rows} x {seen.batch.length} tokens: {parts};"
        f" by method: {each}",
        "qlora" if facts.settings.finetuning_type == "qlora" else "method",
    )


def linear(facts: Facts, seen: Outlook) -> Advice | None:
    run = facts.settings
    if run.finetuning_type not in ("lora", "qlora"):
        return None
    why = "all linear layers beat query and value only"
    target = "all" if is_all(run.lora_target, facts.linear) else run.lora_target
    return _line("lora_target", "all", why, "all-linear", target)


def alpha(facts: Facts, seen: Outlook) -> Advice | None:
    run = facts.settings
    if run.finetuning_type not in ("lora", "qlora"):
        return None
    why = f"twice the rank of {run.lora_rank}"
    return _line("lora_alpha", str(2 * run.lora_rank), why, "alpha", str(run.alpha))


def stages(facts: Facts, seen: Outlook) -> Advice:
    run = facts.settings
    begun = run.adapter_name_or_path is not None
    match run.stage:
        case "pt":
            value, why = "pt, then sft", "after plain text a model must learn again to answer"
        case "sft":
            value, why = "sft", "a small sft on a model that was pre-trained well is mostly enough"
        case "rm":
            value, why = "rm", "a reward model is a stage for grpo, not a model that answers"
        case later:
            value = later if begun else f"sft, then {later}"
            why = "preferences move a model that already answers as the field does"
    return Advice("stages", value, why, "stages")


def mix(facts: Facts, seen: Outlook) -> Advice:
    counts, pt = facts.counts, facts.settings.stage == "pt"
    held = ", ".join(f"{role} {count}" for role, count in counts.roles.items())
    field = counts.roles.get("domain", 0)
    if pt:
        low, high = REPLAY
        enough = replay(facts) is None
        wanted = f"{low * field:,.0f} to {high * field:,.0f} rows of replayed text"
        why = f"{low:.0f} to {high:.0f} times the {field:,} of the field; 5% was enough elsewhere"
        return _line("mix", held if enough else wanted, why, "replay", held)
    general = counts.roles.get("general", 0) + counts.roles.get("replay", 0)
    share = general / counts.rows if counts.rows else 0.0
    enough = share >= MIN_GENERAL
    wanted = held if enough else f"at least {MIN_GENERAL:.0%} general rows"
    why = f"{share:.0%} of the rows are general"
    if facts.settings.finetuning_type == "full" and general < 2 * field:
        why += "; for full tuning, figures speak for two for each of the field's"
    return _line("mix", wanted, why, "mix", held)


def epochs(facts: Facts, seen: Outlook) -> Advice:
    run, rows = facts.settings, facts.counts.rows
    most = 1 if run.stage == "pt" or rows >= MANY else 3 if rows < FEW else 2
    why = f"{rows:,} rows; the held-out loss may stop it sooner"
    said = f"{facts.epochs:.3g}" + (f" (max_steps {run.max_steps})" if run.max_steps > 0 else "")
    return _line("epochs", said if facts.epochs <= most else f"at most {most}", why, "epochs", said)


def optimizer(facts: Facts, seen: Outlook) -> Advice:
    run = facts.settings
    trained = seen.run.parts["optimizer"]
    full = run.finetuning_type == "full"
    if full and saves(run.optim):
        return Advice("optimizer", run.optim, f"its state takes {gb(trained)}", "optimizer")
    if full and not seen.fits("full"):
        why = f"Adam's state takes {gb(trained)}; with 8 bits a quarter of it"
        return _line("optimizer", "adamw_bnb_8bit", why, "optimizer", run.optim)
    why = f"its state takes {gb(trained)}"
    return _line("optimizer", "adamw_torch_fused", why, "optimizer", run.optim)


def judging(facts: Facts, seen: Outlook) -> Advice:
    judged = facts.settings.eval
    names = [n for n in ("questions", "grounding", "choice", "maths", "text") if getattr(judged, n)]
    said = ", ".join(f"eval.{name}" for name in names) or "nothing"
    field = judged.questions or judged.grounding
    if field and set(names) - {"questions", "grounding"}:
        return Advice("judged by", said, "the field, and what it may cost", "price")
    why = "what is bought (eval.questions, grounding), and the price (eval.choice, maths, text)"
    return _line("judged by", "the field and general abilities", why, "price", said)


def seeds(facts: Facts, seen: Outlook) -> Advice:
    have = 1 + len(set(facts.settings.eval.seeds) - {facts.settings.seed})
    why = "a difference smaller than their spread is none (eval.seeds)"
    return (
        _line("seeds", "3", why, "seeds", str(have))
        if have < 3
        else Advice("seeds", str(have), why, "seeds")
    )


def _line(about: str, value: str, why: str, rule: str, configured: str) -> Advice:
    return Advice(about, value, why, rule, None if configured == value else configured)
