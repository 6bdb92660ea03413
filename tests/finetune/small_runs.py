"""Rows and settings of a run that a test can afford: a tiny model learns three short answers."""

from pathlib import Path
from typing import Any

from finetune.rows import Message, Origin, Row, write
from finetune.settings import TrainSettings

ANSWERS = ("blue", "at nine", "ask the chief")
QUESTIONS = ("Which colour?", "When is the round?", "Who decides what is done at night?")


def row(n: int, **more: Any) -> Row:
    messages = (
        Message(role="user", content=QUESTIONS[n % 3]),
        Message(role="assistant", content=ANSWERS[n % 3]),
    )
    return Row(**{"messages": messages, "origin": Origin(source=f"made.jsonl:{n}"), **more})


def rows(count: int = 12, **more: Any) -> list[Row]:
    return [row(n, **more) for n in range(count)]


def run(folder: Path, model: Path, train: list[Row] | None = None, **keys: Any) -> TrainSettings:
    """Settings of a run in `folder`, its rows written, two held-out roles beside them."""
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    train = rows() if train is None else train
    write(train, data / "train.jsonl")
    held = [
        one.model_copy(update={"role": role}) for role in ("domain", "general") for one in train[:4]
    ]
    write(held, data / "val.jsonl")
    chosen: dict[str, Any] = {
        "model_name_or_path": str(model),
        "output_dir": folder,
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "num_train_epochs": 3,
        "logging_steps": 1,
        "save_steps": 3,
        "eval_steps": 3,
        "bf16": False,
        "seed": 7,
    }
    return TrainSettings.model_validate({**chosen, **keys})
