"""The practice rules: what experience says about tuning a model for a field, and its evidence.

A rule looks at the facts of a run and complains in one sentence, or is silent. `allow: [id]` in
the configuration overrides it. Where published figures disagree with a rule, its evidence says so.
Knows nothing of how facts are measured (`finetune.facts`) or who shows complaints (doctor, plan).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from finetune.checks import (
    SERIOUS,
    abilities,
    all_linear,
    alpha,
    base_by_field,
    epochs,
    fit,
    foreign,
    knowledge,
    method,
    mix,
    noise,
    optimizer,
    price,
    qlora_cost,
    quality,
    quantized,
    replay,
    seeds,
    spoiled,
    stages,
)
from finetune.facts import Facts
from kb.errors import BadConfiguration
from kb.settings import nearest

Severity = Literal["note", "warning", "serious"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One practice rule. `check` gives a complaint, or None."""

    id: str
    claim: str
    evidence: str
    severity: Severity
    check: Callable[[Facts], str | None]
    spoils: Callable[[Facts], bool] | None = None
    """Whether what it complains of is so much that a run must not begin."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A complaint of a rule about a run; `allowed` when the configuration overrides it."""

    rule: Rule
    text: str
    allowed: bool
    severity: Severity


def refuse_unknown(allow: Sequence[str]) -> None:
    """Raises BadConfiguration for an id that no rule has."""
    known = [rule.id for rule in RULES]
    for name in allow:
        if name not in known:
            raise BadConfiguration(f"allow: no rule is called {name}; {nearest(name, known)}")


def findings(facts: Facts) -> list[Finding]:
    """What the rules hold against a run."""
    return [
        Finding(rule, text, rule.id in facts.settings.allow, _severity(rule, facts))
        for rule in RULES
        if (text := rule.check(facts)) is not None
    ]


def _severity(rule: Rule, facts: Facts) -> Severity:
    return "serious" if rule.spoils and rule.spoils(facts) else rule.severity


def by_id(name: str) -> Rule:
    return next(rule for rule in RULES if rule.id == name)


def table() -> str:
    """The rules as a Markdown table, for docs/finetuning.md."""
    lines = ["| id | rule | evidence | severity |", "|---|---|---|---|"]
    for r in RULES:
        above = f"; serious above {SERIOUS:.0%} of the rows" if r.spoils else ""
        lines.append(f"| `{r.id}` | {r.claim} | {r.evidence} | {r.severity}{above} |")
    return "\n".join(lines)


RULES: Sequence[Rule] = (
    Rule(
        "knowledge",
        "Knowledge base and tuned model together; neither alone.",
        "The server answers from passages, so a model must have been trained on them: the bundled"
        " model went from 20% to 34% right on noisy passages, and from no citation to 90% (trial"
        " with 764 rows of the serving prompt).",
        "warning",
        knowledge,
    ),
    Rule(
        "quality",
        "Quality before quantity: a few hundred good rows can beat tens of thousands.",
        "LIMA (arXiv 2305.11206): 1,000 chosen rows. AlpaGasus (arXiv 2307.08701): 9,000 of"
        " Alpaca's 52,000 rows beat all of them.",
        "warning",
        quality,
    ),
    Rule(
        "mix",
        "Mix general rows with the field's, or the model forgets.",
        "ms-swift, Qwen-7B, gsm8k: .517 before; full tuning .174 without mixing, .343 with two"
        " general rows for each of the field's. **Disagrees for LoRA:** .470 without, and C-Eval"
        " fell from .574 to .304 *with* mixing. Not monotonic: the gate measures each ability.",
        "warning",
        mix,
    ),
    Rule(
        "replay",
        "Continued pre-training needs 5 to 10 times replayed text of the original kind, shuffled"
        " in.",
        "House experience. **Disagrees:** arXiv 2403.08763 found 5% replay enough for a weak shift"
        " of the text's kind. More replay costs time, less costs abilities: measure perplexity.",
        "warning",
        replay,
    ),
    Rule(
        "noise",
        "Noise out: repeated words or characters, non-word sequences, wrong language, mojibake.",
        "House experience, no figures at hand. The filters show samples of what they drop, so that"
        " a wrong filter is seen.",
        "warning",
        noise,
        spoiled,
    ),
    Rule(
        "fit",
        "Instruction rows that do not fit the base model (template fragments, perplexity outliers)"
        " out.",
        "A row that holds another model's control tokens teaches to write them; the server breaks"
        " such tokens in its prompts (kb/prompt.py).",
        "warning",
        fit,
    ),
    Rule(
        "abilities",
        "Abilities mixed: those with much data conflict, those with little gain. Set ratios,"
        " measure each.",
        "arXiv 2310.05492 (data composition in supervised fine-tuning). ms-swift's table above:"
        " each ability moves its own way.",
        "note",
        abilities,
    ),
    Rule(
        "epochs",
        "Few epochs over a static set; stop on a held-out loss.",
        "Llama-2-7B on Alpaca: twice the epochs was worse.",
        "warning",
        epochs,
    ),
    Rule(
        "price",
        "Not one model for everything: say which ability is being bought, and the price.",
        "ms-swift's table: what full tuning gained was paid with two thirds of gsm8k.",
        "warning",
        price,
    ),
    Rule(
        "stages",
        "Stages: pre-training, SFT, reward model, RL. Mostly large pre-training and a small SFT is"
        " enough.",
        "Preference stages move a model that already follows instructions (InstructGPT, arXiv"
        " 2203.02155).",
        "warning",
        stages,
    ),
    Rule(
        "method",
        "Up to 7B prefer full tuning where memory allows, above 13B LoRA or QLoRA; P-tuning only"
        " as a last resort.",
        "**Disagrees:** peft's comparison (Llama-3.2-3B, MetaMathQA): full .472 at 36.2 GiB, LoRA"
        " r32 .478 at 20.8 GiB, rank-stabilised r64 .513, DoRA .469, P-tuning .350. So LoRA is the"
        " default at every size, and P-tuning is not the better choice below 7B either.",
        "note",
        method,
    ),
    Rule(
        "all-linear",
        "LoRA on all linear layers.",
        "Llama-2-7B on Alpaca: all linear layers beat query and value only.",
        "warning",
        all_linear,
    ),
    Rule(
        "alpha",
        "alpha = 2 x rank.",
        "Llama-2-7B on Alpaca: alpha of twice the rank was best.",
        "note",
        alpha,
    ),
    Rule(
        "qlora",
        "QLoRA: a third less memory for 40 to 50% more time.",
        "Llama-2-7B, one A100, r=8: bf16 6,686 s and 21.33 GB; nf4 10,060 s (+50.5%) and 14.18 GB"
        " (-33.5%); fp4 9,334 s (+39.6%). The often quoted +39% and -33% mix the two.",
        "note",
        qlora_cost,
    ),
    Rule(
        "optimizer",
        "The optimizer matters little; Adam's state matters for full tuning and high ranks, not"
        " for small LoRA.",
        "Llama-2-7B: SGD instead of AdamW saves 0.03 GB at r=8, 3.4 GB at r=256.",
        "note",
        optimizer,
    ),
    Rule(
        "base",
        "Base model by field: what it was pre-trained on counts. Judge on your own data with"
        " `finetune eval`.",
        "BLOOMZ for medicine was the rule's example; no figures at hand. The bundled model writes"
        " English only.",
        "warning",
        base_by_field,
        foreign,
    ),
    Rule(
        "quantized",
        "From about 10B on, a quantized model keeps its ability.",
        "House experience, no figures at hand; measure with `finetune eval`.",
        "note",
        quantized,
    ),
    Rule(
        "seeds",
        "Runs differ by seed; report the spread.",
        "A difference smaller than the spread of the seeds is none: `eval.seeds`.",
        "note",
        seeds,
    ),
)
