"""`finetune plan`: every line has its rule, what cannot fit is said, what is measured is shown."""

import json
import re
import subprocess
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune import advice, cli, device, outlook, showing, trainset
from finetune.advice import Advice, choose
from finetune.base_model import known
from finetune.batches import packed
from finetune.calibrate import Calibration, calibrate, measure, short
from finetune.facts import Counts, Facts
from finetune.lengths import Sized
from finetune.memory import GB, RUNTIME, Machine
from finetune.outlook import Outlook
from finetune.plan import Plan, plan
from finetune.render import Renderer
from finetune.rules import RULES
from finetune.settings import TrainSettings
from kb.errors import BadData, TrainingStopped
from tests.finetune import tiny
from tests.finetune.small_runs import row, rows, run
from tests.finetune.test_memory import llama

ROOMY = Machine("cpu", 64 * GB, bf16=False, name="a machine")
MEASURED = Calibration(tokens_per_second=50, rows_per_second=2, peak=3 * GB, seconds=9)


def silent(text: str) -> None:
    """No messages in tests."""


def planned(settings: TrainSettings, on: Machine = ROOMY, **more: Any) -> Plan:
    return plan(settings, known(settings, Path("unused"), silent), on, **more)


def advised(
    billions: float, available: float, counts: Counts | None = None, **keys: Any
) -> dict[str, Advice]:
    """The lines for a model of this size on a GPU with so many GB."""
    written = {"model_name_or_path": "unused", "output_dir": "run"}
    settings = TrainSettings.model_validate({**written, **keys})
    shape = llama(billions)
    on = Machine("cuda", round(available * GB), bf16=True)
    seen = outlook.of(settings, shape, [Sized(row(n), 256, 64) for n in range(16)], on)
    facts = Facts(
        settings,
        counts or Counts({"domain": 80, "general": 20}),
        parameters=round(billions * 1e9),
        full_fits=seen.fits("full"),
        lora_fits=seen.fits("lora"),
        linear=shape.names,
    )
    return {line.about: line for line in advice.advise(facts, seen)}


@pytest.mark.parametrize("stage", ["pt", "sft", "dpo", "rm", "grpo"])
@pytest.mark.parametrize("method", ["full", "lora", "qlora", "ptuning"])
def test_every_line_has_a_rule_that_exists(stage: str, method: str) -> None:
    lines = advised(1, 80, stage=stage, finetuning_type=method)
    assert {line.rule for line in lines.values()} <= {rule.id for rule in RULES}
    assert {"method", "stages", "mix", "epochs", "memory"} <= set(lines)
    assert all(line.value and line.why for line in lines.values())


@pytest.mark.parametrize(
    ("billions", "full_fits", "lora_fits", "method"),
    [
        (0.1, True, True, "full"),
        (7, True, True, "full"),
        (7, False, True, "lora"),
        (7, False, False, "qlora"),
        (8, True, True, "lora"),
        (14, True, True, "lora"),
        (14, False, False, "qlora"),
    ],
)
def test_size_and_memory_choose_the_method_as_the_rule_has_it(
    billions: float, full_fits: bool, lora_fits: bool, method: str
) -> None:
    assert choose(billions, full_fits, lora_fits) == method


@pytest.mark.parametrize(
    ("billions", "available", "method"),
    [(1, 80, "full"), (7, 180, "full"), (7, 40, "lora"), (7, 12, "qlora"), (14, 640, "lora")],
)
def test_the_memory_that_is_counted_decides(billions: float, available: float, method: str) -> None:
    line = advised(billions, available)["method"]
    assert line.value == method and line.rule == ("qlora" if method == "qlora" else "method")
    assert line.configured == (None if method == "lora" else "lora")


def test_where_figures_disagree_with_a_rule_the_line_and_the_page_say_so(
    tiny_model: Path, tmp_path: Path
) -> None:
    made = planned(run(tmp_path, tiny_model))
    assert {line.rule for line in made.lines if line.disagrees} == {"method", "mix"}
    said = showing.plan(made)
    assert "method: Disagrees: peft's comparison" in said and "full .472 at 36.2 GiB" in said


def test_plain_text_is_to_have_five_to_ten_times_as_much_replayed() -> None:
    line = advised(1, 80, Counts({"domain": 100, "replay": 30}), stage="pt")["mix"]
    assert line.value == "500 to 1,000 rows of replayed text" and line.rule == "replay"
    assert line.configured == "domain 100, replay 30" and line.disagrees
    enough = advised(1, 80, Counts({"domain": 100, "replay": 700}), stage="pt")["mix"]
    assert enough.value == "domain 100, replay 700" and enough.configured is None


def test_rows_without_general_ones_are_to_have_some() -> None:
    line = advised(1, 80, Counts({"domain": 99, "general": 1}))["mix"]
    assert line.value == "at least 10% general rows" and line.configured == "domain 99, general 1"
    assert advised(1, 80)["mix"].configured is None
    assert "two for each" in advised(1, 80, finetuning_type="full")["mix"].why


@pytest.mark.parametrize(
    ("count", "asked", "value"),
    [(500, 3, "3"), (500, 9, "at most 3"), (5_000, 3, "at most 2"), (20_000, 2, "at most 1")],
)
def test_more_rows_need_fewer_epochs(count: int, asked: float, value: str) -> None:
    line = advised(1, 80, Counts({"domain": count}), num_train_epochs=asked)["epochs"]
    assert line.value == value and (line.configured is None) == (value == "3")


@pytest.mark.parametrize(
    ("others", "value", "configured"), [([], "3", "1"), ([42, 1], "3", "2"), ([1, 2], "3", None)]
)
def test_a_run_counts_among_its_seeds(others: list[int], value: str, configured: str) -> None:
    line = advised(1, 80, eval={"seeds": others}, seed=42)["seeds"]
    assert (line.value, line.configured) == (value, configured)


def test_preferences_come_after_answers() -> None:
    assert advised(1, 80, stage="dpo")["stages"].value == "sft, then dpo"
    begun = advised(1, 80, stage="dpo", adapter_name_or_path="sft/adapter")
    assert begun["stages"].value == "dpo"


def test_full_tuning_that_is_too_large_is_told_of_smaller_state() -> None:
    tight = advised(1, 14, finetuning_type="full")["optimizer"]
    assert tight.value == "adamw_bnb_8bit" and tight.configured == "adamw_torch_fused"
    assert advised(1, 80, finetuning_type="full")["optimizer"].configured is None
    for optim in ("adamw_bnb_8bit", "sgd"):  # with which it fits
        kept = advised(1, 14, finetuning_type="full", optim=optim)["optimizer"]
        assert (kept.value, kept.configured) == (optim, None)


def test_steps_are_advised_as_the_epochs_they_are() -> None:
    few = advised(1, 80, Counts({"domain": 320}), max_steps=10)["epochs"]
    assert few.value == "0.5 (max_steps 10)" and few.configured is None
    many = advised(1, 80, Counts({"domain": 320}), max_steps=100)["epochs"]
    assert many.value == "at most 3" and many.configured == "5 (max_steps 100)"


def test_all_layers_by_name_are_all() -> None:
    names = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"
    assert advised(1, 80, lora_target=names)["lora_target"].configured is None
    assert advised(1, 80, lora_target="q_proj")["lora_target"].configured == "q_proj"


def test_time_is_of_all_tokens_at_the_measured_speed(tiny_model: Path, tmp_path: Path) -> None:
    settings = run(tmp_path, tiny_model, num_train_epochs=2)
    seen: list[Outlook] = []

    def measure(_: TrainSettings, outlook: Outlook) -> Calibration:
        seen.append(outlook)
        return MEASURED

    made = planned(settings, measure=measure)
    said = showing.plan(made)
    tokens = int(said.split(" tokens an epoch")[0].split()[-1].replace(",", ""))
    assert made.seconds == pytest.approx(2 * tokens / 50)
    assert "50 tokens/s and a peak of 3.0 GB measured in 9 s" in said
    assert len(seen[0].heaviest) == len(seen[0].common) == 2
    few = settings.model_copy(update={"max_steps": 3})
    assert planned(few, measure=measure).seconds == pytest.approx(12 * tokens / 12 / 50)


def test_answers_that_are_drawn_are_counted_by_answer(tiny_model: Path, tmp_path: Path) -> None:
    train = rows(answer="blue")
    settings = run(tmp_path, tiny_model, train, stage="grpo", num_train_epochs=1)
    made = planned(settings, measure=lambda *_: MEASURED)
    assert made.seconds == 12 * settings.num_generations / 2
    three = settings.model_copy(update={"max_steps": 3})
    assert planned(three, measure=lambda *_: MEASURED).seconds == 3 * 4 / 2  # 4 answers a step
    assert made.lines[-1].why.startswith(f"{12}") or "2 answers/s" in made.lines[-1].why


def test_what_cannot_fit_is_not_measured(tiny_model: Path, tmp_path: Path) -> None:
    def never(*_: Any) -> Calibration:
        raise AssertionError("measured")

    tight = replace(ROOMY, available=GB // 2)
    made = planned(run(tmp_path, tiny_model), tight, measure=never)
    assert "too little memory" in made.too_little and "0.5 GB are free" in made.too_little
    assert made.lines[-1].value == "unknown" and made.seconds is None


def test_rows_that_nobody_can_render_have_no_plan(tiny_model: Path, tmp_path: Path) -> None:
    settings = run(tmp_path, tiny_model, cutoff_len=16)
    with pytest.raises(BadData, match="longer than cutoff_len 16"):
        planned(settings)


@pytest.fixture
def config(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VADEMECUM_HOME", str(tmp_path / "home"))
    settings = run(tmp_path / "run", tiny_model)
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(settings.model_dump(mode="json", exclude_unset=True)))
    return file


def called(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["finetune", *arguments])
    return cli.main()


def free(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "machine", lambda bf16=None: replace(ROOMY, available=size))


@pytest.mark.parametrize("command", [("plan",), ("plan", "--dry-run"), ("doctor",)])
def test_too_little_memory_is_3_and_says_how_much_and_what_to_change(
    config: Path,
    command: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    free(GB // 2, monkeypatch)
    assert called(*command, str(config), monkeypatch=monkeypatch) == 3
    out, said = capsys.readouterr()
    assert re.search(r"need about \d\.\d GB, 0\.5 GB are free; leave the longest rows out", said)
    assert "!! memory" in out


def test_memory_that_is_tight_is_a_warning(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    free(round(1.05 * RUNTIME), monkeypatch)  # a tiny model takes little beside
    assert called("plan", str(config), "--dry-run", monkeypatch=monkeypatch) == 0
    assert " ! memory: batches of 2 x" in capsys.readouterr().out


def test_a_dry_run_prints_one_stable_document(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    free(64 * GB, monkeypatch)
    printed = []
    for _ in range(2):
        assert called("plan", str(config), "--dry-run", "--json", monkeypatch=monkeypatch) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    made = json.loads(printed[0])
    assert list(made) == ["lines", "memory", "measured", "seconds", "fits", "problems"]
    line = ["about", "value", "why", "rule", "configured", "disagrees", "evidence"]
    assert all(list(one) == line for one in made["lines"])
    assert made["measured"] is made["seconds"] is None and made["fits"] is True
    assert set(made["memory"]["by_method"]) == {"full", "lora", "qlora"}


def test_a_few_real_steps_are_measured_and_nothing_of_them_is_kept(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(config.parent.rglob("*"))
    assert called("plan", str(config), "--json", monkeypatch=monkeypatch) == 0
    made = json.loads(capsys.readouterr().out)
    measured = made["measured"]
    assert measured["tokens_per_second"] > 0 and measured["peak"] > 2**28
    assert made["seconds"] is not None and measured["seconds"] > 0
    assert sorted(config.parent.rglob("*")) == before


def test_steps_that_fail_say_why(tiny_model: Path, tmp_path: Path) -> None:
    settings = run(tmp_path, tiny_model, optim="no_such_optimizer")
    with pytest.raises(TrainingStopped, match="no_such_optimizer"):
        calibrate(settings, tmp_path, rows(2), rows(2))


@pytest.mark.parametrize(
    ("seen", "given"),
    [(None, "0"), ("", ""), ("-1", "-1"), ("2,3", "2"), ("GPU-ab, GPU-cd", "GPU-ab")],
)
def test_a_calibration_sees_one_gpu(
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seen: str | None,
    given: str,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if seen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    said = []

    def ran(*args: Any, env: dict[str, str], **more: Any) -> subprocess.CompletedProcess[str]:
        said.append(env["CUDA_VISIBLE_DEVICES"])
        return subprocess.CompletedProcess([], 0, f"calibration: {json.dumps(asdict(MEASURED))}")

    monkeypatch.setattr(subprocess, "run", ran)
    assert calibrate(run(tmp_path, tiny_model), tmp_path, rows(2), rows(2)) == MEASURED
    assert said == [given]


def test_the_plan_is_printed_where_the_steps_failed(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*args: Any) -> Calibration:
        raise TrainingStopped("the calibration run failed: no")

    free(64 * GB, monkeypatch)
    monkeypatch.setattr("finetune.plan.calibrate", fails)
    assert called("plan", str(config), "--json", monkeypatch=monkeypatch) == 1
    out, said = capsys.readouterr()
    assert json.loads(out)["measured"] is None and "the calibration run failed: no" in said
    assert json.loads(out)["lines"][-1]["why"] == "nothing was measured"


@pytest.mark.parametrize("count", [3, 300])
def test_packed_rows_are_measured_in_full_packs(
    tiny_model: Path, tmp_path: Path, count: int
) -> None:
    settings = run(tmp_path, tiny_model, rows(count), packing=True, cutoff_len=128)
    seen: list[Outlook] = []

    def measure(_: TrainSettings, outlook: Outlook) -> Calibration:
        seen.append(outlook)
        return MEASURED

    planned(settings, measure=measure)
    job = TrainSettings.model_validate(short(settings, tmp_path, seen[0].common, seen[0].heaviest))
    renderer = Renderer(tiny.tokenizer())
    kept, _ = trainset.tokens(trainset.load(job).train, renderer, job)
    steps = job.max_steps * job.per_device_train_batch_size * job.gradient_accumulation_steps
    taken = packed(kept, job.cutoff_len)[:steps]
    assert len(taken) == steps
    assert sum(len(one["input_ids"]) for one in taken) > 0.75 * steps * job.cutoff_len


def test_steps_of_packs_take_as_long_as_their_tokens(tiny_model: Path, tmp_path: Path) -> None:
    settings = run(tmp_path, tiny_model, packing=True, cutoff_len=128, max_steps=5)
    made = planned(settings, measure=lambda *_: MEASURED)
    assert made.seconds == pytest.approx(5 * 4 * 128 / MEASURED.tokens_per_second)


@pytest.mark.parametrize("stage", ["dpo", "rm", "grpo"])
def test_other_stages_are_measured_too(tiny_model: Path, tmp_path: Path, stage: str) -> None:
    """In this process: that they have one of their own is seen above."""
    keys = {"num_generations": 2, "max_completion_length": 4} if stage == "grpo" else {}
    settings = run(tmp_path, tiny_model, stage=stage, **keys)
    train = rows(2, answer="blue", rejected="something else")
    job = short(settings, tmp_path, train, train)
    measured = measure(TrainSettings.model_validate(job), tmp_path)
    assert measured.rows_per_second > 0 and measured.peak > 2**28
