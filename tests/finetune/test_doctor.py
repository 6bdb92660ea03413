"""What would go wrong is told before it does: rows under the glass, the engine, the adapter."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from finetune import cli, servable, showing
from finetune.base_model import known, stops
from finetune.doctor import Diagnosis, examine
from finetune.inspection import HttpTokenize, Tokenize
from finetune.memory import GB, Machine
from finetune.render import Renderer
from finetune.rows import Message, Origin, Row, write
from finetune.settings import TrainSettings
from kb.catalog import Catalog
from kb.errors import EngineDown
from tests.finetune import tiny
from tests.finetune.handbook import NAME, fill
from tests.finetune.small_runs import row, rows, run


def silent(text: str) -> None:
    """No messages in tests."""


def look(settings: TrainSettings, tokenize: Tokenize | None = None) -> Diagnosis:
    return examine(settings, known(settings, Path("unused"), silent), tokenize)


def serious(found: Diagnosis) -> dict[str, str]:
    return {p.check: p.text for p in found.serious}


def said(*turns: str, **more: Any) -> Row:
    roles = ("user", "assistant") * len(turns)
    told = [Message(role=r, content=t) for r, t in zip(roles, turns, strict=False)]
    return Row(messages=tuple(told), origin=Origin(source="made.jsonl:99"), **more)


def with_template(model: Path, folder: Path, template: str) -> Path:
    """The tiny model with another chat template."""
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = template
    copied = tiny.save(folder)
    tokenizer.save_pretrained(copied)
    return copied


def test_good_rows_have_nothing_serious(tiny_model: Path, tmp_path: Path) -> None:
    found = look(run(tmp_path, tiny_model))
    assert not found.serious
    assert found.ledger.rendered == 12 and found.facts.counts.roles == {"domain": 12}


def test_rows_are_shown_with_what_is_masked_and_what_is_trained(
    tiny_model: Path, tmp_path: Path
) -> None:
    found = look(run(tmp_path, tiny_model))
    plain = showing.diagnosis(found, colours=False)
    assert "Which colour?<|im_end|>\n<|im_start|>assistant\n⟦blue<|im_end|>⟧" in plain
    (shown, *_) = showing.document(found)["shown"]
    assert [s["trained"] for s in shown["segments"]] == [False, True, False]
    assert "\x1b[1;32mblue<|im_end|>\x1b[0m" in showing.diagnosis(found, colours=True)


def test_rows_that_are_mostly_noise_are_serious_unless_that_is_allowed(
    tiny_model: Path, tmp_path: Path
) -> None:
    german = said("Wo ist das?", "Das ist in dem Haus, und die Tür ist auf der anderen Seite.")
    noise = said("Why?", "so so so so so so so so")
    given = [*rows(6), german, german, noise, noise]
    found = look(run(tmp_path, tiny_model, given, data={"languages": ["en"]}))
    assert serious(found) == {"noise": "4 rows (40.0%) are noise"}
    allowing = run(tmp_path, tiny_model, given, data={"languages": ["en"]}, allow=["noise"])
    assert not look(allowing).serious
    assert not look(run(tmp_path, tiny_model, [*rows(16), noise, noise])).serious


@pytest.mark.parametrize("others", [True, False])
def test_a_field_of_which_nothing_is_held_out_is_a_warning(
    tiny_model: Path, tmp_path: Path, others: bool
) -> None:
    settings = run(tmp_path, tiny_model)
    assert not [p for p in look(settings).problems if p.check == "held out"]
    write([row(0, role="general")] if others else [], tmp_path / "data/val.jsonl")
    (told,) = (p for p in look(settings).problems if p.check == "held out")
    assert told.severity == "warning"
    assert ("the loss of general rows chooses" if others else "no loss stops") in told.text


def test_rows_of_documents_that_changed_since_are_counted(tiny_model: Path, tmp_path: Path) -> None:
    made = [
        row(n, origin=Origin(source=f"kb:{NAME} q:{n}", documents=(f"sha-{name}.md",)))
        for n, name in enumerate(("dosing", "leave"))
    ]
    settings = run(tmp_path, tiny_model, made, data={"knowledge": [{"kb": NAME, "ask": "rules"}]})
    model = known(settings, Path("unused"), silent)

    def stale(home: Path) -> list[str]:
        found = examine(settings, model, live=Catalog(home))
        return [p.text for p in found.problems if p.check == "stale"]

    base = fill(tmp_path / "home")
    assert stale(tmp_path / "home") == []
    base.remove("dosing.md")
    (text,) = stale(tmp_path / "home")
    assert text.startswith(f"1 of 2 rows show documents of {NAME} that have changed since")
    assert f"kb:{NAME} q:0" in text
    base.close()
    (gone,) = stale(tmp_path)
    assert gone.startswith(f"2 rows are of {NAME}: ")


def test_an_end_token_inside_an_answer_is_serious(tiny_model: Path, tmp_path: Path) -> None:
    twice = said("Why?", "So<|im_end|> and so.")
    found = look(run(tmp_path, tiny_model, [*rows(), twice]))
    assert "not trained exactly once in made.jsonl:99" in serious(found)["end tokens"]


def test_a_template_without_an_end_is_serious(tiny_model: Path, tmp_path: Path) -> None:
    endless = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    model = with_template(tiny_model, tmp_path / "model", endless)
    assert "end tokens" in serious(look(run(tmp_path / "run", model)))


def test_a_template_that_hides_answers_is_told(tiny_model: Path, tmp_path: Path) -> None:
    hiding = (
        "{% for m in messages %}{% if m.role != 'assistant' or loop.last %}"
        "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    model = with_template(tiny_model, tmp_path / "model", hiding)
    found = look(run(tmp_path / "run", model, [*rows(), said("a?", "b", "c?", "d")]))
    (note,) = [p for p in found.problems if p.check == "end tokens"]
    assert note.severity == "note" and "hides earlier answers" in note.text


def test_a_prompt_whose_tokens_do_not_begin_the_row_is_serious(
    tiny_model: Path, tmp_path: Path
) -> None:
    # The prompt ends in a space that the row's first word swallows: "the" is one token with it.
    swallowing = tiny.CHATML.replace("assistant\n' }}", "assistant: ' }}").replace(
        "message['role'] + '\n'", "message['role'] + ': '"
    )
    model = with_template(tiny_model, tmp_path / "model", swallowing)
    found = look(run(tmp_path / "run", model, [said("Who?", "the question and the answer")]))
    assert "prompt boundary" in serious(found)


def test_too_many_long_rows_are_serious_and_few_are_counted(
    tiny_model: Path, tmp_path: Path
) -> None:
    long = said("Why?", "because " * 300)
    settings = run(tmp_path, tiny_model, [*rows(), long], cutoff_len=256)
    assert "1 rows (7.7%) are longer" in serious(look(settings))["length"]
    allowed = settings.model_copy(update={"max_too_long": 0.1})
    found = look(allowed)
    (told,) = (p.text for p in found.problems if p.check == "length")
    (counted,) = found.ledger.too_long
    assert not found.serious and f": {counted}; max_too_long allows" in told


def test_rejected_answers_count_where_a_stage_compares(tiny_model: Path, tmp_path: Path) -> None:
    pairs = [*rows(12, rejected="no"), row(0, rejected="no" * 200)]
    settings = run(tmp_path, tiny_model, pairs, stage="dpo", cutoff_len=128)
    assert "1 rows (7.7%) are longer" in serious(look(settings))["length"]
    assert not look(settings.model_copy(update={"max_too_long": 0.1})).serious
    assert not look(settings.model_copy(update={"stage": "sft"})).serious


def test_held_out_rows_are_looked_at_as_train_will(tiny_model: Path, tmp_path: Path) -> None:
    settings = run(tmp_path, tiny_model, cutoff_len=256)
    long = said("Why?", "because " * 300)
    write([row(0), long, long.model_copy(update={"role": "general"})], tmp_path / "data/val.jsonl")
    found = look(settings)
    told = [(p.severity, p.text) for p in found.problems if p.check == "length"]
    assert [severity for severity, _ in told] == ["note", "note"]
    assert "1 of 2 held-out rows (domain) are longer than cutoff_len 256" in told[0][1]
    assert "none of them is left" in told[1][1] and "made.jsonl:99" in told[1][1]
    write([long], tmp_path / "data/val.jsonl")
    assert [p.severity for p in look(settings).problems if p.check == "held out"] == ["warning"]
    hidden = tiny.CHATML.replace("message['content']", "message['content'] | replace('zq', '')")
    model = with_template(tiny_model, tmp_path / "model", hidden)
    other = run(tmp_path / "run", model)
    write([said("Why?", "zq of course")], tmp_path / "run/data/val.jsonl")
    assert "1 held-out rows (domain) cannot be rendered: " in serious(look(other))["template"]


def test_a_model_without_a_template_is_serious(tiny_model: Path, tmp_path: Path) -> None:
    model = with_template(tiny_model, tmp_path / "model", "x")
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        file = model / name
        if name.endswith("jinja"):
            file.unlink(missing_ok=True)
        else:
            written = json.loads(file.read_text())
            written.pop("chat_template", None)
            file.write_text(json.dumps(written))
    assert "no chat template" in serious(look(run(tmp_path / "run", model)))["template"]


@pytest.mark.parametrize("key", ["choice", "grounding", "maths", "text"])
def test_rows_that_hold_what_is_judged_are_serious(
    tiny_model: Path, tmp_path: Path, key: str
) -> None:
    question = "Who decides what is done at night when the chief of the ward is not there?"
    items = tmp_path / "items.jsonl"
    items.write_text(json.dumps({"question": question}), encoding="utf-8")
    settings = run(
        tmp_path, tiny_model, [*rows(), said(question, "The deputy.")], eval={key: [items]}
    )
    assert "1 rows hold what the model will be judged on" in serious(look(settings))["overlap"]


def test_noise_and_strange_rows_are_counted_for_the_rules(tiny_model: Path, tmp_path: Path) -> None:
    noisy = said("Why?", "no no no no no no no no no no no")
    strange = said("Why?", "### Response: because")
    found = look(run(tmp_path, tiny_model, [*rows(), noisy, strange]))
    assert (found.facts.noisy, found.facts.unlike) == (1, 1)
    assert {"noise", "fit", "price"} <= {p.check for p in found.problems}


def test_what_rules_ask_for_is_measured(tiny_model: Path, tmp_path: Path) -> None:
    settings = run(tmp_path, tiny_model, [row(0), row(1), row(3), row(1)])
    roomy = Machine("cpu", 64 * GB, bf16=False)
    model = known(settings, Path("unused"), silent)
    facts = examine(settings, replace(model, languages=("en",)), on=roomy).facts
    assert facts.parameters == model.shape.parameters and facts.languages == ("en",)
    assert (facts.full_fits, facts.lora_fits, facts.duplicates) == (True, True, 1)
    assert set(facts.linear) == set(model.shape.names) and facts.linear
    tight = examine(settings, model, on=replace(roomy, available=GB // 2)).facts
    assert (tight.full_fits, tight.lora_fits) == (False, False)
    assert examine(settings, model).facts.full_fits is None


def test_an_allowed_rule_is_shown_as_allowed(tiny_model: Path, tmp_path: Path) -> None:
    found = look(run(tmp_path, tiny_model, allow=["price"]))
    (price,) = [p for p in found.problems if p.check == "price"]
    assert price.allowed and "(allowed)" in showing.diagnosis(found, colours=False)


class Agreeing:
    """An engine with the same template, or one that sees another `system` part."""

    def __init__(self, extra: str = "") -> None:
        self._renderer = Renderer(tiny.tokenizer())
        self._extra = extra

    def __call__(self, messages: Sequence[Message], *, ask: bool) -> list[int]:
        text = self._extra + self._renderer.text(messages, ask=ask)
        ids: list[int] = self._renderer.tokenizer(text)["input_ids"]
        return ids


def test_an_engine_of_one_mind_is_no_problem(tiny_model: Path, tmp_path: Path) -> None:
    assert not look(run(tmp_path, tiny_model), Agreeing()).serious


def test_an_engine_with_another_template_is_serious(tiny_model: Path, tmp_path: Path) -> None:
    found = look(run(tmp_path, tiny_model), Agreeing("<|im_start|>system\nBe good.<|im_end|>\n"))
    told = serious(found)["engine"]
    assert "made.jsonl:0: at token 1 training has 'user" in told and "engine 'syste" in told


def test_the_engine_is_asked_as_vllm_wants_it() -> None:
    asked = []

    def reply(request: httpx.Request) -> httpx.Response:
        asked.append((request.url.path, json.loads(request.content)))
        return httpx.Response(200, json={"tokens": [1, 2], "count": 2})

    tokenize = HttpTokenize("http://e/v1", "m", transport=httpx.MockTransport(reply))
    assert tokenize([Message(role="user", content="q")], ask=True) == [1, 2]
    body = {"messages": [{"role": "user", "content": "q"}], "add_generation_prompt": True}
    assert asked == [("/tokenize", {**body, "model": "m"})]


def test_an_engine_that_cannot_tokenize_is_said_to() -> None:
    refuse = httpx.MockTransport(lambda request: httpx.Response(404))
    with pytest.raises(EngineDown, match="did not tokenize"):
        HttpTokenize("http://e", transport=refuse)([Message(role="user", content="q")], ask=True)


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"finetuning_type": "ptuning"}, "no P-tuning"),
        ({"lora_rank": 1024}, "above 512"),
        ({"lora_target": "q_proj,lm_head"}, "LoRA on lm_head"),
    ],
)
def test_what_vllm_will_refuse_is_serious(tmp_path: Path, keys: dict[str, Any], text: str) -> None:
    settings = TrainSettings(model_name_or_path="m", output_dir=tmp_path, **keys)
    (problem,) = servable.settings(settings)
    assert problem.severity == "serious" and text in problem.text


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"peft_type": "P_TUNING"}, "not P_TUNING"),
        ({"r": 8, "rank_pattern": {"q_proj": 600}}, "above 512"),
        ({"use_dora": True}, "DoRA"),
        ({"lora_bias": True}, "bias"),
        ({"bias": "all"}, "bias"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save lm_head"),
        ({"target_modules": ["q_proj", "lm_head"]}, "LoRA on lm_head"),
    ],
)
def test_an_adapter_that_vllm_will_refuse_is_serious(config: dict[str, Any], text: str) -> None:
    (problem,) = servable.adapter(config, tokens=10, vocabulary=10)
    assert problem.severity == "serious" and text in problem.text


def test_added_tokens_are_serious_and_an_odd_rank_is_a_warning() -> None:
    (problem,) = servable.adapter({"r": 8}, tokens=11, vocabulary=10)
    assert "1 added tokens" in problem.text
    (odd,) = servable.adapter({"r": 12}, tokens=10, vocabulary=10)
    assert odd.severity == "warning" and "room of 16" in odd.text
    assert not list(servable.adapter({"r": 16, "peft_type": "LORA"}, tokens=10, vocabulary=16))


def test_the_engine_stops_where_the_model_folder_says(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 9]}')
    tokenizer = tiny.tokenizer()
    assert stops(tokenizer, tmp_path) == {7, 9, tokenizer.eos_token_id}


def test_the_command_prints_one_document_and_ends_with_3_if_serious(
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = run(tmp_path / "run", tiny_model)
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps({"model_name_or_path": str(tiny_model), "output_dir": "run"}))
    monkeypatch.setattr(sys, "argv", ["finetune", "doctor", str(file), "--json"])
    assert cli.main() == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 12
    run(settings.output_dir, tiny_model, [row(0), said("Why?", "So<|im_end|>.")])
    monkeypatch.setattr(sys, "argv", ["finetune", "doctor", str(file)])
    assert cli.main() == 3
    told = capsys.readouterr()
    assert "!! end tokens" in told.out and "1 serious" in told.err
