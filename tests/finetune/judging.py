"""A model that says what it is told to, and a configuration with items: no weights needed."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.engines import Asked, Messages, Score
from finetune.settings import TrainSettings, load

REFUSAL = "The knowledge base holds no answer to this question."


class Scripted:
    """Says `answer(last message)`; finds texts as likely as `likely(context, text)` says."""

    def __init__(
        self,
        name: str,
        answer: Callable[[str], str],
        likely: Callable[[str, str], float] = lambda context, text: -float(len(text)),
    ) -> None:
        self.name = name
        self._answer = answer
        self._likely = likely
        self.prompts: list[Messages] = []

    def generate(self, prompts: Sequence[Messages], max_tokens: int) -> list[str]:
        assert prompts, "a tokenizer takes no empty batch"
        self.prompts += prompts
        return [self._answer(messages[-1]["content"]) for messages in prompts]

    def score(self, asked: Sequence[Asked]) -> list[list[Score]]:
        return [[Score(self._likely(a.context, t), 10) for t in a.continuations] for a in asked]


def write(file: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def grounding(count: int) -> list[dict[str, Any]]:
    """A third each of clean, noisy and unanswerable. The answer to question n is `town n`."""
    out: list[dict[str, Any]] = []
    for n in range(count):
        kind = ("clean", "noisy", "unanswerable")[n % 3]
        gold = {"id": "gold", "text": f"The capital of land {n} is town {n}."}
        other = {"id": "other", "text": f"The river of land {n} is long and old."}
        passages = {"clean": [gold], "noisy": [other, gold], "unanswerable": [other]}[kind]
        out.append(
            {
                "id": str(n),
                "kind": kind,
                "lang": "en",
                "question": f"What is the capital of land {n}?",
                "answers": [f"town {n}"],
                "passages": passages,
                "gold": [] if kind == "unanswerable" else ["gold"],
            }
        )
    return out


def reader(content: str) -> str:
    """Reads: answers with its source where the passages tell, refuses elsewhere."""
    for line in content.splitlines():
        if "capital of land" in line and line.startswith("["):
            number, rest = line.split(" ", 1)
            return f"It is {rest.rsplit(' is ', 1)[1].rstrip('.')} {number}."
    return REFUSAL


def settings(folder: Path, items: int = 60, **more: Any) -> TrainSettings:
    """A configuration over `items` questions, ten choices, ten sums and ten texts in `folder`."""
    choices = [{"question": f"{n}?", "choices": ["no", "yes"], "answer": "B"} for n in range(10)]
    sums = [{"question": f"{n} + 1 =", "answer": f"So\n#### {n + 1}"} for n in range(10)]
    texts = [{"text": f"Text number {n} of some length."} for n in range(10)]
    written = {
        "grounding": [str(write(folder / "items.jsonl", grounding(items)))],
        "choice": [str(write(folder / "exam.jsonl", choices))],
        "maths": [str(write(folder / "sums.jsonl", sums))],
        "text": [str(write(folder / "text.jsonl", texts))],
        **more,
    }
    file = folder / "run.yaml"
    document = {
        "model_name_or_path": "bundled:smollm2-135m-instruct",
        "output_dir": "run",
        "eval": written,
    }
    file.write_text(json.dumps(document), encoding="utf-8")
    return load(file)
