"""Every method and stage trains, what it leaves is whole, and what cannot work is said at once."""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from finetune import models, outlook, stages, trainset
from finetune.checkpoints import last
from finetune.parts import Parts
from finetune.progress import Progress
from finetune.rows import Message, Origin, Row, write
from finetune.settings import TrainSettings
from finetune.train import train
from kb.errors import BadConfiguration, BadData, ModelNotFound, TrainingStopped
from tests.finetune import tiny
from tests.finetune.small_runs import row, rows, run


def trained(settings: TrainSettings) -> dict[str, Any]:
    said: list[str] = []
    return train(settings, settings.output_dir / "home", said.append)


def rewards_of(folder: Path) -> list[float]:
    """Of the answers drawn in each step."""
    checkpoint = last(folder)
    assert checkpoint is not None
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    return [entry["reward"] for entry in state["log_history"] if "reward" in entry]


EXPLORING = {
    "stage": "grpo",
    "num_generations": 4,
    "max_completion_length": 16,
    "beta": 0.001,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
}
PACE = {"full": 3e-3, "lora": 1e-2, "qlora": 1e-2, "ptuning": 0.3}


@pytest.mark.parametrize("method", ["full", "lora", "qlora", "ptuning"])
@pytest.mark.parametrize("stage", ["pt", "sft", "rm", "dpo"])
def test_every_stage_trains_with_every_method(
    tmp_path: Path, tiny_model: Path, stage: str, method: str
) -> None:
    """In float32 throughout, whatever the base is kept in."""
    given = rows(12, rejected="nobody knows" if stage in ("rm", "dpo") else None)
    if stage == "pt":
        given = [Row(text=f"{r.prompt[-1].content} {r.reply}", origin=r.origin) for r in given]
    gently = stage in ("rm", "dpo") and method != "ptuning"
    pace = 3e-3 if gently else PACE[method]
    keys = {"stage": stage, "finetuning_type": method, "learning_rate": pace}
    done = trained(run(tmp_path, tiny_model, given, **keys))
    for curve in ("train", "domain", "general"):
        assert done["losses"][curve]["last"] < done["losses"][curve]["first"]
    if stage in ("rm", "dpo"):  # at first both answers are as good
        assert done["losses"]["train"]["first"] == pytest.approx(0.693, abs=0.1)
    kept = load_file(next((tmp_path / f"checkpoint-{done['steps']}").glob("*model.safetensors")))
    assert {weights.dtype for weights in kept.values()} == {torch.float32}


@pytest.mark.parametrize(("method", "pace"), [("full", 5e-3), ("lora", 0.05), ("qlora", 0.05)])
def test_grpo_makes_the_rewarded_likelier(
    tmp_path: Path, tiny_model: Path, method: str, pace: float
) -> None:
    """The reward is a letter that random weights do say."""
    asked = rows(4, answer="a")
    keys = {**EXPLORING, "finetuning_type": method, "learning_rate": pace, "lora_rank": 32}
    trained(run(tmp_path, tiny_model, asked, **keys, num_train_epochs=15))
    worth = rewards_of(tmp_path)
    assert sum(worth[-5:]) > sum(worth[:5])


def test_a_reward_model_judges_what_is_drawn(tmp_path: Path, tiny_model: Path) -> None:
    better = rows(12, rejected="nobody knows")
    trained(run(tmp_path / "rm", tiny_model, better, stage="rm", finetuning_type="full"))
    keys = {**EXPLORING, "reward_model": tmp_path / "rm/model", "max_steps": 2}
    trained(run(tmp_path / "grpo", tiny_model, rows(4), **keys))
    assert all(worth != 0 for worth in rewards_of(tmp_path / "grpo"))


def test_grpo_takes_rows_that_are_judged_by_what_they_cite_and_refuses_others() -> None:
    settings = TrainSettings.model_validate(
        {"model_name_or_path": "unused", "output_dir": "run", "stage": "grpo"}
    )
    shown = Origin(source="kb:one", chunks=(1,))
    assert trainset.lacks(row(0, origin=shown), settings) == ""
    assert trainset.lacks(row(0, answer="blue"), settings) == ""
    assert "no `answer` to judge by" in trainset.lacks(row(0), settings)


def test_grpo_leaves_out_the_rows_that_it_counts_as_too_long(
    tmp_path: Path, tiny_model: Path
) -> None:
    long = row(0, answer="a").model_copy(
        update={"messages": (Message(role="user", content="w " * 99), *row(0).messages[1:])}
    )
    keys = {**EXPLORING, "cutoff_len": 100, "max_too_long": 0.5}
    settings = run(tmp_path, tiny_model, [long, *rows(4, answer="a")], **keys)
    model, tokenizer = models.load(str(tiny_model), settings, bf16=False), tiny.tokenizer()
    parts = Parts(settings, trainset.load(settings), model, tokenizer, bf16=False)
    trainer, ledger = stages.prepare(parts, Progress())
    assert len(ledger.too_long) == 1
    assert len(trainer.train_dataset) == ledger.rendered == 4  # type: ignore[arg-type]


def test_dpo_goes_on_from_an_adapter_and_is_held_near_to_it(
    tmp_path: Path, tiny_model: Path
) -> None:
    trained(run(tmp_path / "sft", tiny_model))
    better = rows(12, rejected="nobody knows")
    adapter = tmp_path / "sft/adapter"
    done = trained(
        run(tmp_path / "dpo", tiny_model, better, stage="dpo", adapter_name_or_path=adapter)
    )
    # Both are the same model at first: no answer is preferred yet.
    assert done["losses"]["train"]["first"] == pytest.approx(0.6931, abs=1e-3)
    assert done["losses"]["train"]["last"] < done["losses"]["train"]["first"]
    assert len(load_file(tmp_path / "dpo/adapter/adapter_model.safetensors")) == len(
        load_file(adapter / "adapter_model.safetensors")
    )


@pytest.mark.parametrize("packing", [False, True])
def test_text_is_trained_whole(tmp_path: Path, tiny_model: Path, packing: bool) -> None:
    texts = [
        Row(text=f"Ward {n} opens at nine. " * 3, origin=Origin(source=f"book.txt:{n}"))
        for n in range(8)
    ]
    done = trained(run(tmp_path, tiny_model, texts, stage="pt", packing=packing, cutoff_len=256))
    assert done["rows"]["trained_tokens"] == done["rows"]["tokens"] - 8
    assert done["tokens_seen"] == round(done["epochs"]) * done["rows"]["tokens"]


def test_packing_trains_the_same_tokens_in_fewer_batches(tmp_path: Path, tiny_model: Path) -> None:
    one_step = {"max_steps": 1, "per_device_train_batch_size": 12, "gradient_accumulation_steps": 1}
    plain = trained(run(tmp_path / "a", tiny_model, **one_step))
    packed = trained(run(tmp_path / "b", tiny_model, **one_step, packing=True, cutoff_len=128))
    assert packed["tokens_seen"] == plain["tokens_seen"]
    assert packed["losses"]["train"] == pytest.approx(plain["losses"]["train"], rel=1e-5)
    assert packed["losses"]["domain"] == pytest.approx(plain["losses"]["domain"], rel=1e-4)


def test_the_result_answers_otherwise_and_its_base_is_untouched(
    tmp_path: Path, tiny_model: Path
) -> None:
    trained(run(tmp_path, tiny_model))
    tuned = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    ids = torch.arange(20)[None]
    assert not torch.allclose(tuned(ids).logits, base(ids).logits, atol=1e-2)
    with tuned.disable_adapter():
        torch.testing.assert_close(tuned(ids).logits, base(ids).logits)


def test_an_adapter_is_one_that_an_engine_takes(tmp_path: Path, tiny_model: Path) -> None:
    trained(run(tmp_path, tiny_model, lora_rank=8))
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert config["r"] == 8 and config["lora_alpha"] == 16
    assert config["bias"] == "none" and not config["modules_to_save"]
    assert not config["use_dora"] and not config["lora_bias"]
    assert {name.rpartition(".")[2] for name in config["target_modules"]} == {
        *("q_proj", "k_proj", "v_proj", "o_proj"),
        *("gate_proj", "up_proj", "down_proj"),
    }
    assert {p.name for p in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def test_a_fully_tuned_model_is_a_model_folder_in_bfloat16(
    tmp_path: Path, tiny_model: Path
) -> None:
    trained(run(tmp_path, tiny_model, finetuning_type="full"))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert model.dtype == torch.bfloat16
    assert (tmp_path / "model/chat_template.jinja").read_text() == (
        tiny_model / "chat_template.jinja"
    ).read_text()


def test_the_run_says_what_was_done(tmp_path: Path, tiny_model: Path) -> None:
    settings = run(tmp_path, tiny_model, report_to="tensorboard")
    names = ("train.jsonl", "val.jsonl")
    files = {n: hashlib.sha256((tmp_path / "data" / n).read_bytes()).hexdigest() for n in names}
    account = {"files": files, "sources": [{"name": "made.jsonl"}]}
    (tmp_path / "data/data.json").write_text(json.dumps(account), encoding="utf-8")
    done = trained(settings)
    assert done == json.loads((tmp_path / "run.json").read_text())
    assert done["data"] == account  # a release names the sources by it
    assert done["steps"] == 9 and done["epochs"] == 3 and done["best_step"] == 9
    assert done["rows"]["trained"] == 12 and done["rows"]["held_out"] == {"domain": 4, "general": 4}
    assert done["tokens_seen"] == 3 * done["rows"]["tokens"]
    assert done["tokens_per_second"] > 0 and done["peak_memory_mb"] > 100
    assert done["versions"]["torch"] and done["settings"]["seed"] == 7
    assert (tmp_path / "losses.png").read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.rglob("events.out.tfevents*"))
    assert not list(tmp_path.glob(".*"))


def test_a_finished_run_is_not_trained_again(tmp_path: Path, tiny_model: Path) -> None:
    settings = run(tmp_path, tiny_model)
    assert trained(settings) == trained(settings)


@pytest.mark.parametrize("save_steps", [3, 12, 300])
def test_a_run_stops_when_the_held_out_loss_rises_and_keeps_the_best(
    tmp_path: Path, tiny_model: Path, save_steps: int
) -> None:
    """Also where no checkpoint is due at the best step, or at the last."""
    keys: dict[str, Any] = {"learning_rate": 0.3, "num_train_epochs": 40, "patience": 2}
    settings = run(tmp_path, tiny_model, **keys, save_steps=save_steps)
    done = trained(settings)
    assert done["stopped_early"] and done["best_step"] % 12
    assert done["best_step"] == done["steps"] - 2 * settings.eval_steps
    best = load_file(tmp_path / f"checkpoint-{done['best_step']}" / "adapter_model.safetensors")
    kept = load_file(tmp_path / "adapter/adapter_model.safetensors")
    assert kept.keys() == best.keys()
    assert all(torch.equal(kept[name], best[name].to(torch.bfloat16)) for name in best)


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_a_run_that_comes_apart_ends_with_the_step_and_what_was_saved(
    tmp_path: Path, tiny_model: Path, stage: str
) -> None:
    keys: dict[str, Any] = {"stage": stage, "finetuning_type": "full", "warmup_ratio": 0.0}
    settings = run(tmp_path, tiny_model, rows(12, rejected="no"), learning_rate=1e38, **keys)
    said = r"the loss of step 2 is nan: at learning_rate 1e\+38 .* \(nothing was saved last\)"
    with pytest.raises(TrainingStopped, match=said):
        trained(settings)
    assert not (tmp_path / "model").exists() and last(tmp_path) is None


def test_weights_that_are_no_numbers_are_not_kept_as_the_best(
    tmp_path: Path, tiny_model: Path
) -> None:
    settings = run(tmp_path, tiny_model)
    model = models.load(str(tiny_model), settings, bf16=False)
    parts = Parts(settings, trainset.load(settings), model, tiny.tokenizer(), bf16=False)
    trainer, _ = stages.prepare(parts, Progress())
    for weights in model.parameters():
        weights.data.fill_(float("nan"))
    with pytest.raises(TrainingStopped, match=r"the held-out loss \(domain\) of step 0 is nan"):
        trainer.evaluate()


def test_gradients_do_not_depend_on_how_a_step_is_cut_into_batches(
    tmp_path: Path, tiny_model: Path
) -> None:
    whole = run(
        tmp_path / "a", tiny_model, per_device_train_batch_size=4, gradient_accumulation_steps=1
    )
    cut = run(
        tmp_path / "b", tiny_model, per_device_train_batch_size=1, gradient_accumulation_steps=4
    )
    one, other = trained(whole)["losses"], trained(cut)["losses"]
    for curve in ("train", "domain"):  # held out, too, a token counts as much as any other
        assert one[curve] == pytest.approx(other[curve], rel=1e-5)


def test_gradient_checkpointing_changes_no_loss(tmp_path: Path, tiny_model: Path) -> None:
    plain = trained(run(tmp_path / "a", tiny_model))
    saving = trained(run(tmp_path / "b", tiny_model, gradient_checkpointing=True))
    assert saving["losses"]["train"] == pytest.approx(plain["losses"]["train"], rel=1e-5)


def test_an_adapter_is_gone_on_with(tmp_path: Path, tiny_model: Path) -> None:
    first = trained(run(tmp_path / "a", tiny_model))
    settings = run(tmp_path / "b", tiny_model, adapter_name_or_path=tmp_path / "a/adapter")
    second = trained(settings)
    assert second["losses"]["train"]["first"] < first["losses"]["train"]["last"] + 0.1


def test_an_adapter_of_another_rank_than_is_said_is_refused(
    tmp_path: Path, tiny_model: Path
) -> None:
    """Memory is counted by what is said, and the adapter's own is what would be trained."""
    trained(run(tmp_path / "a", tiny_model, lora_rank=8, max_steps=1))
    for keys, said in (
        ({}, "lora_rank: 16, and .*a/adapter has 8: write lora_rank: 8"),
        ({"lora_rank": 8, "lora_alpha": 8}, "lora_alpha: 8, and .* has 16"),
    ):
        more: dict[str, Any] = {"adapter_name_or_path": tmp_path / "a/adapter", **keys}
        with pytest.raises(BadConfiguration, match=said):
            trained(run(tmp_path / "b", tiny_model, **more))
    done = run(tmp_path / "b", tiny_model, adapter_name_or_path=tmp_path / "a/adapter", lora_rank=8)
    assert trained(done)["parameters"]["trained"] > 0


# What cannot work.


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"lora_rank": 1024}, "lora_rank: 1024 is more than the 512"),
        ({"stage": "grpo", "finetuning_type": "ptuning"}, "cannot train a soft prompt; take lora"),
        ({"lora_target": "no_such_layer"}, "lora_target: .*no_such_layer"),
        ({"lr_scheduler_type": "cosin"}, "cosin"),
        ({"adapter_name_or_path": "/no/such"}, "adapter_name_or_path: /no/such"),
        ({"resume_from_checkpoint": "/no/such"}, "resume_from_checkpoint: /no/such"),
    ],
)
def test_a_configuration_that_cannot_work_names_its_key(
    tmp_path: Path, tiny_model: Path, keys: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadConfiguration, match=said):
        trained(run(tmp_path, tiny_model, rows(answer="a"), **keys))
    assert not (tmp_path / "run.json").exists()


def test_other_settings_do_not_go_on_with_a_run(tmp_path: Path, tiny_model: Path) -> None:
    trained(run(tmp_path, tiny_model))
    with pytest.raises(BadConfiguration, match=r"of a run with other lora_rank, seed"):
        trained(run(tmp_path, tiny_model, lora_rank=8, seed=8))
    with pytest.raises(BadConfiguration, match=r"of a run with other rows"):
        trained(run(tmp_path, tiny_model, rows(8)))
    with pytest.raises(BadConfiguration, match=r"resume_from_checkpoint: false"):
        trained(run(tmp_path, tiny_model, lora_rank=8, resume_from_checkpoint=False))


def test_rows_that_are_too_long_are_counted_and_too_many_refused(
    tmp_path: Path, tiny_model: Path
) -> None:
    long = Row(text="word " * 100, origin=Origin(source="book.txt:9"))
    with pytest.raises(BadData, match=r"1 of 13 rows are longer .*book.txt:9"):
        trained(run(tmp_path, tiny_model, [*rows(), long], cutoff_len=100))
    done = trained(run(tmp_path, tiny_model, [*rows(), long], cutoff_len=100, max_too_long=0.1))
    assert done["rows"]["trained"] == 12
    assert len(done["rows"]["too_long"]) == 1 and "book.txt:9" in done["rows"]["too_long"][0]


@pytest.mark.parametrize("stage", ["sft", "rm", "dpo"])
def test_held_out_rows_that_are_too_long_are_left_out_and_counted(
    tmp_path: Path, tiny_model: Path, stage: str
) -> None:
    settings = run(tmp_path, tiny_model, rows(12, rejected="no"), stage=stage, cutoff_len=100)
    long = row(0, rejected="no" * 99, role="general", origin=Origin(source="made.jsonl:77"))
    if stage == "sft":
        long = Row(text="word " * 100, role="general", origin=long.origin)
    held = [*rows(2, rejected="no"), long]
    write(held, tmp_path / "data/val.jsonl")
    done = trained(settings.model_copy(update={"max_steps": 3}))
    assert set(done["losses"]) == {"train", "domain"}
    assert done["rows"]["held_out"] == {"domain": 2}
    (said,) = done["rows"]["too_long"]
    assert said.startswith("held out (general): made.jsonl:77: ") and "limit 100" in said


def test_a_rejected_answer_that_is_left_out_needs_no_memory(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [*rows(60, rejected="no"), row(0, rejected="no" * 5_000)]
    settings = run(tmp_path, tiny_model, pairs, stage="dpo", cutoff_len=100, max_steps=1)
    seen: list[int] = []

    def of(run: TrainSettings, shape: Any, sized: Any, on: Any) -> Any:
        seen.append(max(one.tokens for one in sized))
        return outlook.of(run, shape, sized, on)

    monkeypatch.setattr("finetune.train.outlook", SimpleNamespace(of=of))
    trained(settings)
    assert seen and seen[0] <= 100


def test_pairs_of_which_one_is_too_long_are_left_out_and_too_many_refused(
    tmp_path: Path, tiny_model: Path
) -> None:
    pairs = [*rows(12, rejected="no"), row(0, rejected="no" * 99)]
    settings = run(tmp_path, tiny_model, pairs, stage="dpo", cutoff_len=100, max_steps=3)
    with pytest.raises(BadData, match=r"1 of 13 rows are longer .*made.jsonl:0"):
        trained(settings)
    done = trained(settings.model_copy(update={"max_too_long": 0.1}))
    assert done["rows"]["trained"] == 12 and len(done["rows"]["too_long"]) == 1


def test_rows_that_are_missing_or_do_not_fit_the_stage_are_named(
    tmp_path: Path, tiny_model: Path
) -> None:
    with pytest.raises(BadData, match=r"made.jsonl:0 has no `rejected`"):
        trained(run(tmp_path / "a", tiny_model, [row(0)], stage="dpo"))
    with pytest.raises(BadData, match=r"none.jsonl: No such file"):
        trained(run(tmp_path / "b", tiny_model, dataset=tmp_path / "none.jsonl"))
    with pytest.raises(BadData, match=r"train.jsonl: holds no rows"):
        trained(run(tmp_path / "c", tiny_model, []))
    with pytest.raises(ModelNotFound, match=r"no model is called"):
        trained(run(tmp_path / "d", Path("nothing")))


def test_a_run_that_the_machine_cannot_hold_does_not_begin(
    tmp_path: Path, tiny_model: Path
) -> None:
    settings = run(tmp_path, tiny_model, packing=True, per_device_train_batch_size=10**5)
    with pytest.raises(BadConfiguration, match=r"too little memory: .* are free"):
        trained(settings)
    assert not (tmp_path / "begun.json").exists()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_too_little_memory_is_said_with_what_helps(
    tmp_path: Path, tiny_model: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr("finetune.head.loss", fails)
    with pytest.raises(TrainingStopped, match=r"too little memory .*gradient_checkpointing"):
        trained(run(tmp_path, tiny_model))
