"""A run that is killed goes on exactly; a disk that fills up takes no checkpoint with it."""

import errno
import json
import os
import re
import resource
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from finetune import cli, runs
from finetune.checkpoints import last
from finetune.settings import TrainSettings
from finetune.train import train
from kb.errors import BadConfiguration, TrainingStopped, WriterBusy
from tests.finetune import forked
from tests.finetune.small_runs import rows, run

KEPT = ("step", "grad_norm", "reward", "reward_std", "completions/mean_length")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Two would wait for each other on a busy machine, and add up in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained(settings: TrainSettings) -> dict[str, Any]:
    return train(settings, settings.output_dir / "home", lambda said: None)


def history(folder: Path) -> list[dict[str, Any]]:
    """Losses and rewards of all steps, as the newest checkpoint remembers them."""
    checkpoint = last(folder)
    assert checkpoint is not None
    entries = json.loads((checkpoint / "trainer_state.json").read_text())["log_history"]
    return [{k: v for k, v in one.items() if k in KEPT or k.endswith("loss")} for one in entries]


def configured(settings: TrainSettings) -> Path:
    config = settings.output_dir / "run.yaml"
    document = settings.model_dump(mode="json", exclude_unset=True)
    config.write_text(yaml.safe_dump(document), encoding="utf-8")
    return config


def killed(settings: TrainSettings, step: int) -> None:
    """Begun as a process of its own, and killed once a checkpoint of `step` or later stands."""
    said = settings.output_dir / "said"
    home = str(settings.output_dir / "home")
    environment = {"VADEMECUM_HOME": home, "OMP_NUM_THREADS": "1"}
    process = forked.start(
        "train", str(configured(settings)), "--json", said=said, environment=environment
    )
    until = time.monotonic() + 200
    while (found := last(settings.output_dir)) is None or int(found.name[11:]) < step:
        assert process.is_alive() and time.monotonic() < until, said.with_suffix(".err").read_text()
        time.sleep(0.002)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (settings.output_dir / "run.json").exists()


KINDS: dict[str, dict[str, Any]] = {
    "lora": {"lora_dropout": 0.1},
    "ptuning": {"finetuning_type": "ptuning"},
    "full": {"finetuning_type": "full"},
    "qlora": {"finetuning_type": "qlora"},
    "packing": {"packing": True, "cutoff_len": 64, "num_train_epochs": 24},
    "dpo": {"stage": "dpo", "learning_rate": 3e-3},
    "rm": {"stage": "rm", "learning_rate": 3e-3},
    # Answers are drawn: the reward tells whether they are the same ones.
    "grpo": {
        "stage": "grpo",
        "learning_rate": 0.05,
        "num_generations": 4,
        "max_completion_length": 8,
        "num_train_epochs": 2,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(
    tmp_path: Path, tiny_model: Path, kind: str
) -> None:
    """The same losses, or rewards, at every step, and the same weights."""
    given = rows(14, rejected="nobody knows", answer="a")
    pace = {"num_train_epochs": 8, "eval_steps": 6, "save_steps": 6, "patience": 0}
    keys = pace | KINDS[kind]
    whole, cut = (run(tmp_path / name, tiny_model, given, **keys) for name in ("whole", "cut"))
    steps = trained(whole)["steps"]
    killed(cut, 6)
    done = trained(cut)
    assert done["resumed_from"] and done["steps"] == steps
    assert history(cut.output_dir) == history(whole.output_dir)
    (result,) = (whole.output_dir / done["result"]).glob("*.safetensors")
    other = load_file(cut.output_dir / done["result"] / result.name)
    for name, weights in load_file(result).items():
        assert torch.equal(weights, other[name]), name


def test_a_half_written_checkpoint_is_never_taken_for_one(tmp_path: Path, tiny_model: Path) -> None:
    settings = run(tmp_path, tiny_model)
    for name in (".saving/checkpoint-6", "checkpoint-9", "checkpoint-x"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "adapter_model.safetensors").write_bytes(b"half")
    (tmp_path / ".saving/checkpoint-6/trainer_state.json").write_text("{}")
    assert last(tmp_path) is None
    assert trained(settings)["resumed_from"] is None
    assert last(tmp_path) == tmp_path / "checkpoint-9"
    assert not (tmp_path / ".saving").exists()


@pytest.mark.parametrize(
    "failing", ["torch.save", "peft.peft_model.safe_save_file", "kb.durable.sync_tree"]
)
def test_a_disk_that_fills_up_leaves_the_checkpoint_before_whole(
    tmp_path: Path, tiny_model: Path, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is being written when no space is left."""

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def fail_from_now_on(*args: Any, **kwargs: Any) -> None:
        if last(tmp_path) is not None:
            monkeypatch.setattr(failing, full)

    monkeypatch.setattr("finetune.progress.Progress.on_step_begin", fail_from_now_on)
    settings = run(tmp_path, tiny_model)
    with pytest.raises(
        TrainingStopped, match=r"checkpoint-6 could not .*No space left.*checkpoint-3 is whole"
    ):
        trained(settings)
    assert not (tmp_path / ".saving").exists()
    monkeypatch.undo()
    done = trained(settings)
    assert done["resumed_from"] == "checkpoint-3" and done["steps"] == 9


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """What is written beyond `size` bytes of a file finds no space."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_at_the_end_costs_only_the_result(
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Curves, adapter, whole weights: each is one line and exit code 1, and can be had later."""
    settings = run(tmp_path, tiny_model, lora_rank=64)
    config = configured(settings)
    monkeypatch.setenv("VADEMECUM_HOME", str(tmp_path / "home"))

    def failing(command: str, size: int) -> str:
        monkeypatch.setattr("sys.argv", ["finetune", command, str(config)])
        capsys.readouterr()
        with files_of_at_most(size):
            assert cli.main() == 1
        return str(capsys.readouterr().err.splitlines()[-1])

    trained(settings)
    (tmp_path / "run.json").unlink()
    assert "too large" in failing("train", 5_000)  # of the curves
    assert re.search(
        r"adapter: could not .*too large.*checkpoint-9 is whole", failing("train", 10**5)
    )
    assert trained(settings)["resumed_from"] == "checkpoint-9"
    assert re.search(r"cannot be merged: .*too large", failing("merge", 30_000))
    assert not list(tmp_path.glob(".*")) and not (tmp_path / "merged").exists()


def test_the_best_checkpoint_is_known_again_after_a_resume(
    tmp_path: Path, tiny_model: Path
) -> None:
    settings = run(tmp_path, tiny_model, learning_rate=0.3, num_train_epochs=40, patience=2)
    best = trained(settings)["best_step"]
    (tmp_path / "run.json").unlink()
    again = trained(settings)
    assert again["best_step"] == best
    assert json.loads((last(tmp_path) / "trainer_state.json").read_text())[  # type: ignore[operator]
        "best_model_checkpoint"
    ] == str(tmp_path / f"checkpoint-{best}")


@pytest.mark.parametrize(
    "keys",
    [
        {"max_steps": 4},  # of three an epoch
        {"num_train_epochs": 1.5},
        {"learning_rate": 0.3, "num_train_epochs": 40, "patience": 1, "save_steps": 300},
    ],
    ids=["steps", "epochs", "patience"],
)
def test_a_run_that_had_ended_is_not_trained_on_for_want_of_its_result(
    tmp_path: Path, tiny_model: Path, keys: dict[str, Any]
) -> None:
    settings = run(tmp_path, tiny_model, **keys)
    done = trained(settings)
    weights = (tmp_path / "adapter/adapter_model.safetensors").read_bytes()
    (tmp_path / "run.json").unlink()
    again = trained(settings)
    same = ("steps", "epochs", "best_step", "stopped_early", "losses", "tokens_seen")
    assert again["resumed_from"] == f"checkpoint-{done['steps']}"
    assert {k: again[k] for k in same} == {k: done[k] for k in same}
    assert (tmp_path / "adapter/adapter_model.safetensors").read_bytes() == weights


def cut_off(settings: TrainSettings) -> None:
    """As if a run had been killed before its last checkpoint."""
    (settings.output_dir / "run.json").unlink()
    newest = last(settings.output_dir)
    assert newest is not None
    shutil.rmtree(newest)


def test_who_goes_on_may_look_more_often(tmp_path: Path, tiny_model: Path) -> None:
    trained(run(tmp_path, tiny_model, logging_steps=3))
    cut_off(run(tmp_path, tiny_model))
    often: dict[str, Any] = dict.fromkeys(("logging_steps", "eval_steps", "save_steps"), 1)
    done = trained(run(tmp_path, tiny_model, **often, save_total_limit=9))
    assert done["resumed_from"] == "checkpoint-6"
    later = [entry for entry in history(tmp_path) if entry["step"] > 6]
    assert [entry["step"] for entry in later if "loss" in entry] == [7, 8, 9]
    assert [entry["step"] for entry in later if "eval_domain_loss" in entry] == [7, 8, 9]
    assert {path.name for path in tmp_path.glob("checkpoint-*")} >= {"checkpoint-7", "checkpoint-8"}


def test_who_goes_on_may_have_less_patience(tmp_path: Path, tiny_model: Path) -> None:
    keys: dict[str, Any] = {"learning_rate": 0.3, "num_train_epochs": 40}
    best = trained(run(tmp_path, tiny_model, **keys, patience=2))["best_step"]
    cut_off(run(tmp_path, tiny_model))
    done = trained(run(tmp_path, tiny_model, **keys, patience=1))
    assert done["resumed_from"] == f"checkpoint-{best}"
    assert done["best_step"] == best and done["steps"] == best + 3


def test_another_number_of_processes_does_not_go_on_with_a_run(
    tmp_path: Path, tiny_model: Path
) -> None:
    """It would repeat some rows and leave others out. What is finished is anybody's to read."""
    settings = run(tmp_path, tiny_model)
    one, two = (runs.decisive(settings, "hash", processes) for processes in (1, 2))
    (tmp_path / "checkpoint-3").mkdir()
    for name in ("checkpoint-3/trainer_state.json", "run.json"):
        (tmp_path / name).write_text("{}")
    for begun, other in ((one, two), (two, one)):
        runs.write_json(tmp_path / runs.BEGUN, begun)
        assert runs.resumed(settings, begun) == tmp_path / "checkpoint-3"
        with pytest.raises(BadConfiguration, match=r"of a run with other processes;"):
            runs.resumed(settings, other)
        assert runs.finished(tmp_path, other) == {}


def test_a_named_checkpoint_must_be_of_the_same_run(tmp_path: Path, tiny_model: Path) -> None:
    """As far as it is told beside it which run that was; and it is not mixed with another's."""
    other, mine = tmp_path / "other", tmp_path / "mine"
    named = run(mine, tiny_model, resume_from_checkpoint=other / "checkpoint-3")
    wanted = runs.decisive(named, "hash", 1)
    for folder in (other, mine):
        (folder / "checkpoint-3").mkdir(parents=True)
    (other / "checkpoint-3/trainer_state.json").write_text("{}")
    assert runs.resumed(named, wanted) == other / "checkpoint-3"
    runs.write_json(other / runs.BEGUN, wanted)
    assert runs.resumed(named, wanted) == other / "checkpoint-3"
    runs.write_json(other / runs.BEGUN, {**wanted, "seed": 8})
    with pytest.raises(BadConfiguration, match=r"other/checkpoint-3 is of a run with other seed"):
        runs.resumed(named, wanted)
    runs.write_json(other / runs.BEGUN, wanted)
    (mine / "checkpoint-3/trainer_state.json").write_text("{}")
    with pytest.raises(BadConfiguration, match=r"output_dir: .*mine holds checkpoint-3 of a run"):
        runs.resumed(named, wanted)


def test_one_process_at_a_time_has_the_folder_of_a_run(tmp_path: Path, tiny_model: Path) -> None:
    settings = run(tmp_path, tiny_model, max_steps=1)
    with (
        runs.alone(tmp_path),
        pytest.raises(
            WriterBusy, match=rf"output_dir: {tmp_path} is in use by process {os.getpid()}"
        ),
    ):
        trained(settings)
    assert not (tmp_path / "begun.json").exists()
    assert trained(settings)["steps"] == 1
    with runs.alone(tmp_path):  # what is finished may be read by all
        assert trained(settings)["steps"] == 1
