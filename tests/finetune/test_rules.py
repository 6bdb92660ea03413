"""Every practice rule complains where it is broken, is silent where it is kept, can be allowed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finetune.facts import Counts, Facts, count
from finetune.rows import Message, Origin, Row
from finetune.rules import RULES, findings, refuse_unknown, table
from finetune.settings import TrainSettings
from kb.errors import BadConfiguration

BILLION = 10**9
MIXED = Counts({"domain": 80, "general": 20}, {"grounding": 60, "chat": 40}, {"en": 100}, 60)


def facts(counts: Counts = MIXED, **more: Any) -> Facts:
    """A run that keeps every rule, but for what is said; unknown keys go into the settings."""
    known = {k: more.pop(k) for k in list(more) if k in Facts.__dataclass_fields__}
    written = {
        "model_name_or_path": "bundled:smollm2-135m-instruct",
        "output_dir": Path("run"),
        "eval": {"grounding": ["items.jsonl"], "choice": ["exam.jsonl"], "seeds": [1, 2]},
    }
    settings = TrainSettings.model_validate({**written, **more})
    return Facts(settings, counts, **known)


BROKEN: dict[str, Facts] = {
    "knowledge": facts(replace(MIXED, with_passages=0)),
    "quality": facts(Counts({"domain": 20_000, "general": 9_000}, with_passages=9)),
    "mix": facts(Counts({"domain": 95, "general": 5}, with_passages=9)),
    "replay": facts(Counts({"domain": 100, "replay": 400}), stage="pt"),
    "noise": facts(noisy=2),
    "fit": facts(unlike=1),
    "abilities": facts(replace(MIXED, abilities={"grounding": 95, "chat": 5})),
    "epochs": facts(num_train_epochs=4),
    "price": facts(eval={"grounding": ["items.jsonl"]}),
    "stages": facts(stage="dpo"),
    "method": facts(finetuning_type="full", parameters=14 * BILLION),
    "all-linear": facts(lora_target="q_proj,v_proj"),
    "alpha": facts(lora_rank=16, lora_alpha=16),
    "qlora": facts(finetuning_type="qlora", parameters=12 * BILLION, lora_fits=True),
    "optimizer": facts(finetuning_type="full", full_fits=False),
    "base": facts(replace(MIXED, languages={"en": 50, "zh": 50}), languages=("en",)),
    "quantized": facts(finetuning_type="qlora", parameters=3 * BILLION),
    "seeds": facts(eval={"grounding": ["items.jsonl"], "choice": ["exam.jsonl"]}),
}

KEPT: dict[str, Facts] = {
    "knowledge": facts(replace(MIXED, with_passages=0), stage="pt"),
    "quality": facts(
        Counts({"domain": 20_000, "general": 9_000}, with_passages=9), noisy=100, duplicates=100
    ),
    "mix": facts(Counts({"domain": 90, "general": 5, "replay": 5}, with_passages=9)),
    "replay": facts(Counts({"domain": 100, "replay": 500}), stage="pt"),
    "noise": facts(noisy=1),
    "fit": facts(unlike=0),
    "abilities": facts(
        replace(MIXED, abilities={"grounding": 95, "chat": 5}), data={"mix": {"domain": 1}}
    ),
    "epochs": facts(num_train_epochs=3),
    "price": facts(),
    "stages": facts(stage="dpo", adapter_name_or_path="sft/adapter"),
    "method": facts(finetuning_type="lora", parameters=14 * BILLION),
    "all-linear": facts(lora_target="q_proj", finetuning_type="full"),
    "alpha": facts(lora_rank=8),
    "qlora": facts(finetuning_type="qlora", parameters=12 * BILLION, lora_fits=False),
    "optimizer": facts(finetuning_type="full", full_fits=False, optim="adamw_bnb_8bit"),
    "base": facts(languages=("en",)),
    "quantized": facts(finetuning_type="qlora", parameters=12 * BILLION),
    "seeds": facts(eval={"grounding": ["a"], "text": ["b"], "seeds": [1]}),
}

ALSO_BROKEN: list[tuple[str, Facts]] = [
    ("quality", facts(Counts({"domain": 20_000}), noisy=900, duplicates=200)),
    ("replay", facts(Counts({"domain": 10, "replay": 200}), stage="pt")),
    ("abilities", facts(replace(MIXED, abilities={"grounding": 60, "maths": 40}))),
    ("epochs", facts(patience=0)),
    ("epochs", facts(max_steps=20)),  # of 16 rows, 100 there are
    ("stages", facts(stage="dpo", finetuning_type="full")),
    ("all-linear", facts(lora_target="q_proj", linear=("q_proj", "up_proj"))),
    ("optimizer", facts(lora_rank=128, lora_fits=False)),
    ("price", facts(eval={"choice": ["exam.jsonl"]})),
    ("method", facts(finetuning_type="ptuning")),
    ("method", facts(parameters=BILLION, full_fits=True)),
    ("optimizer", facts(lora_rank=8, optim="adamw_bnb_8bit")),
]


ALSO_KEPT: list[tuple[str, Facts]] = [
    (
        "abilities",
        facts(
            replace(MIXED, abilities={"grounding": 60, "maths": 40}),
            eval={"grounding": ["items.jsonl"], "maths": ["problems.jsonl"], "seeds": [1]},
        ),
    ),
    ("epochs", facts(max_steps=18)),
    ("epochs", facts(max_steps=70, stage="grpo")),  # four answers a row
    ("all-linear", facts(lora_target="up_proj, q_proj", linear=("q_proj", "up_proj"))),
    ("optimizer", facts(lora_rank=128, lora_fits=True, full_fits=False)),
]


def complaints(known: Facts) -> list[str]:
    return [f.rule.id for f in findings(known)]


def test_there_are_eighteen_rules_and_each_is_tried_both_ways() -> None:
    assert len(RULES) == 18
    assert [r.id for r in RULES] == list(BROKEN) == list(KEPT)


@pytest.mark.parametrize(("rule", "known"), [*BROKEN.items(), *ALSO_BROKEN])
def test_a_rule_complains_where_it_is_broken(rule: str, known: Facts) -> None:
    assert rule in complaints(known)


@pytest.mark.parametrize(("rule", "known"), [*KEPT.items(), *ALSO_KEPT])
def test_a_rule_is_silent_where_it_is_kept(rule: str, known: Facts) -> None:
    assert rule not in complaints(known)


def test_full_tuning_goes_on_from_a_folder_of_weights(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"stage": "dpo", "finetuning_type": "full"}
    assert "stages" not in complaints(facts(model_name_or_path=str(tmp_path), **keys))


def test_a_good_run_hears_no_complaint() -> None:
    assert complaints(facts()) == []


def test_what_nobody_measured_is_no_reason_to_complain_of_it() -> None:
    unknown = facts()
    assert unknown.noisy is unknown.unlike is unknown.parameters is unknown.full_fits is None
    assert not {"noise", "fit", "method", "quantized", "optimizer"} & set(complaints(unknown))


@pytest.mark.parametrize(
    ("rule", "few", "many"),
    [
        ("noise", facts(noisy=20), facts(noisy=21)),
        (
            "base",
            facts(replace(MIXED, languages={"en": 80, "zh": 20}), languages=("en",)),
            facts(replace(MIXED, languages={"en": 79, "zh": 21}), languages=("en",)),
        ),
    ],
)
def test_rows_of_which_a_fifth_is_no_good_are_serious(rule: str, few: Facts, many: Facts) -> None:
    said = [{f.rule.id: f.severity for f in findings(known)}[rule] for known in (few, many)]
    assert said == ["warning", "serious"]


def test_an_allowed_rule_is_told_as_allowed() -> None:
    (finding,) = findings(facts(num_train_epochs=9, allow=["epochs"]))
    assert finding.allowed and finding.rule.id == "epochs"


def test_an_unknown_rule_cannot_be_allowed() -> None:
    with pytest.raises(BadConfiguration, match="epoch; did you mean epochs"):
        refuse_unknown(["alpha", "epoch"])


def test_every_rule_gives_its_evidence() -> None:
    assert all(rule.evidence and f"`{rule.id}`" in table() for rule in RULES)


def test_the_documentation_holds_the_rules_as_they_are() -> None:
    documentation = Path(__file__).parents[2] / "docs" / "finetuning.md"
    assert table() in documentation.read_text(encoding="utf-8")


def test_rows_are_counted_by_what_they_are_for() -> None:
    said = (Message(role="user", content="q"), Message(role="assistant", content="a"))
    rows = [
        Row(messages=said, language="en", origin=Origin(source="a", chunks=(1,))),
        Row(messages=said, ability="grounding", origin=Origin(source="b")),
        Row(text="t", role="replay", origin=Origin(source="c")),
    ]
    held = count(rows)
    assert held.roles == {"domain": 2, "replay": 1}
    assert held.abilities == {"chat": 2, "grounding": 1}
    assert (held.languages, held.with_passages) == ({"en": 1}, 2)
