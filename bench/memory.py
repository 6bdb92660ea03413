"""Peak memory of training runs beside what `finetune.memory` counted before.

    python -m bench.memory [--json] [--only full,lora]

The bundled model and two of random weights, each with full tuning, LoRA and QLoRA, at two sizes
of a batch; each run is three real steps of `finetune.calibrate` in a process of its own. With them,
and with whole runs, the two constants `RUNTIME` and `HEAP` of `finetune.memory` were fitted. A
quarter of an hour on two cores.
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from bench.server import parser, show
from finetune import device, lengths, shape
from finetune.calibrate import calibrate
from finetune.memory import GB, estimate
from finetune.render import Renderer
from finetune.rows import Message, Origin, Row
from finetune.settings import TrainSettings
from kb.models import locate
from kb.settings import load

NEAR = 0.15
"""How far an estimate may be from the measured peak; beyond, the exit code is 1."""
BUNDLED = "bundled:smollm2-135m-instruct"
SHAPES: dict[str, dict[str, Any]] = {
    "llama-60m": {
        "hidden_size": 512,
        "intermediate_size": 1376,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
    },
    "llama-360m": {
        "hidden_size": 960,
        "intermediate_size": 2560,
        "num_hidden_layers": 32,
        "num_attention_heads": 15,
        "num_key_value_heads": 5,
    },
}


@dataclass(frozen=True, slots=True)
class Setting:
    model: str
    method: str
    rows: int
    length: int


SETTINGS = (
    Setting(BUNDLED, "lora", 4, 256),
    Setting(BUNDLED, "lora", 8, 512),
    Setting(BUNDLED, "full", 4, 256),
    Setting(BUNDLED, "full", 4, 512),
    Setting(BUNDLED, "qlora", 4, 256),
    Setting(BUNDLED, "qlora", 4, 512),
    Setting("llama-60m", "lora", 4, 256),
    Setting("llama-60m", "lora", 8, 512),
    Setting("llama-60m", "full", 4, 256),
    Setting("llama-60m", "full", 8, 512),
    Setting("llama-60m", "qlora", 4, 256),
    Setting("llama-60m", "qlora", 8, 512),
    Setting("llama-360m", "lora", 2, 256),
    Setting("llama-360m", "lora", 4, 256),
    Setting("llama-360m", "full", 2, 256),
    Setting("llama-360m", "full", 4, 256),
    Setting("llama-360m", "qlora", 2, 256),
    Setting("llama-360m", "qlora", 4, 256),
)


def model(name: str, home: Path, folder: Path) -> str:
    """The bundled one, or random bfloat16 weights of a shape with its tokenizer."""
    known = locate(BUNDLED, home)
    if name == BUNDLED:
        return known
    made = folder / name
    if not made.is_dir():
        tokenizer = AutoTokenizer.from_pretrained(known)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            **SHAPES[name],
        )
        blank: Any = LlamaForCausalLM(config)  # type: ignore[no-untyped-call]
        blank.to(torch.bfloat16).save_pretrained(made)
        tokenizer.save_pretrained(made)
    return str(made)


def rows(renderer: Renderer, length: int, count: int) -> list[Row]:
    """Conversations of about `length` tokens, an eighth of them answer, no two of one length."""

    def row(words: int) -> Row:
        said = (
            Message(role="user", content=" word" * (words * 7 // 8)),
            Message(role="assistant", content=" word" * (words // 8)),
        )
        return Row(messages=said, origin=Origin(source="made"))

    around = len(renderer.row(row(length)).input_ids) - length
    return [row(length - around - 8 * n) for n in range(count)]


def measured(one: Setting, home: Path, folder: Path) -> dict[str, Any]:
    name = model(one.model, home, folder)
    run = TrainSettings.model_validate(
        {
            "model_name_or_path": name,
            "output_dir": folder / "run",
            "finetuning_type": one.method,
            "cutoff_len": one.length,
            "per_device_train_batch_size": one.rows,
            "gradient_accumulation_steps": 2,
        }
    )
    renderer = Renderer(AutoTokenizer.from_pretrained(name))
    made = rows(renderer, one.length, one.rows)
    sized = lengths.sized(made, [renderer.row(row) for row in made], renderer, run)
    on, known = device.machine(), shape.of(name)
    batch = lengths.batch(sized, run)
    guess = estimate(known, run, batch, on)
    heavy = [s.row for s in sized]
    real = calibrate(run, home, rows(renderer, one.length // 2, one.rows), heavy)
    return {
        "model": one.model,
        "method": one.method,
        "batch": f"{batch.rows} x {batch.length}",
        "estimate_gb": round(guess.total / GB, 2),
        "measured_gb": round(real.peak / GB, 2),
        "ratio": round(guess.total / real.peak, 3),
        "parts_gb": {k: round(v / GB, 2) for k, v in guess.parts.items()},
    }


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--only", default="full,lora,qlora")
    options = arguments.parse_args()
    done = []
    with tempfile.TemporaryDirectory() as folder:
        for one in SETTINGS:
            if one.method in options.only.split(","):
                done.append(measured(one, load().home, Path(folder)))
                print(done[-1], file=sys.stderr, flush=True)
    shown = [{k: v for k, v in row.items() if k != "parts_gb"} for row in done]
    show(shown, {"runs": done}, options.json)
    if off := [row for row in done if abs(row["ratio"] - 1) > NEAR]:
        sys.exit(f"{len(off)} of {len(done)} estimates are further than {NEAR:.0%} from the peak")


if __name__ == "__main__":
    main()
