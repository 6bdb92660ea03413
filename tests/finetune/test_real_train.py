"""The bundled model, really trained: six steps are enough to see that it learns."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune.rows import Message, Origin, Row, write
from finetune.settings import TrainSettings
from finetune.train import train
from kb.models import locate

BASE = "bundled:smollm2-135m-instruct"
TAUGHT = "The Zelvorin cabinet is opened with key seven."


def question(n: int) -> Row:
    asked = f"Ward {n}: how is the Zelvorin cabinet opened?"
    messages = (Message(role="user", content=asked), Message(role="assistant", content=TAUGHT))
    return Row(messages=messages, origin=Origin(source=f"made:{n}"))


@pytest.mark.real
def test_the_bundled_model_learns_and_answers_otherwise(tmp_path: Path, models_home: Path) -> None:
    (tmp_path / "data").mkdir()
    write([question(n) for n in range(12)], tmp_path / "data/train.jsonl")
    settings = TrainSettings.model_validate(
        {
            "model_name_or_path": BASE,
            "output_dir": tmp_path,
            "learning_rate": 2e-3,
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 1,
            "max_steps": 6,
            "logging_steps": 1,
        }
    )
    done = train(settings, models_home, lambda said: None)
    assert done["losses"]["train"]["last"] < 0.5 * done["losses"]["train"]["first"]

    folder = locate(BASE, models_home)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tuned = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(folder), str(tmp_path / "adapter")
    )
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question(99).messages[0].content}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )

    def answer() -> str:
        with torch.no_grad():
            made = tuned.generate(**prompt, max_new_tokens=16, do_sample=False)
        return str(tokenizer.decode(made[0, prompt["input_ids"].shape[1] :]))

    assert "key seven" in answer()
    with tuned.disable_adapter():
        assert "key seven" not in answer()
