"""How fast `finetune train` is beside a plain TRL script, in what memory, and what packing gains.

    python -m bench.train [--quick] [--rounds 2] [--rows 12] [--only lora] [--json FILE]

Full tuning, LoRA and QLoRA, each with padded and with packed rows: medquad's questions and answers
(VADEMECUM_DATA), once through. Every run has a process of its own, one after the other, in turn:
ours, TRL, TRL, ours; medians of the rounds. Without a GPU it trains the bundled model; with one,
Qwen2.5's shapes of 0.5, 1.5 and 7 billion parameters with random weights, as far as they fit.

`ratio` is tokens per second beside TRL's, `processor ratio` tokens per processor second: where
other jobs run, the second one says more, and more still with OMP_NUM_THREADS=1, which keeps threads
from waiting for each other. What both ways share is in bench.train_one, MFU in bench.flops.
"""

import argparse
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from bench import flops, shapes
from bench.train_one import Case, Measured, Way, measure
from finetune import device, formats, models, runs
from finetune.data_settings import Source
from finetune.render import Renderer
from finetune.rows import Row, write
from finetune.settings import Method
from kb.models import locate
from kb.settings import load

DATA = Path(os.environ.get("VADEMECUM_DATA", "../shared/data"))
QUESTIONS = "medquad/qa_sft_2000.jsonl"
BUNDLED = "bundled:smollm2-135m-instruct"
METHODS: tuple[Method, ...] = ("full", "lora", "qlora")
FLOOR = 0.98
"""Of TRL's speed; below, the exit code is 1."""
UTILISATION = 0.45
"""Of a GPU's bfloat16, for LoRA; below, the exit code is 1."""
PUBLISHED = "Llama-2-7B on one A100: time 1.505, memory 0.665"
"""QLoRA beside LoRA, as finetune.rules quotes it."""


@dataclass(frozen=True, slots=True)
class Model:
    name: str
    folder: str
    tokens: int
    """A batch, about: what a processor is kept busy with, and what fits."""
    cutoff: int


def chosen(options: argparse.Namespace, home: Path, kept: Path) -> Iterator[Model]:
    """The models to train; those with random weights are made in `kept`."""
    small = 512
    if options.model:
        yield Model(Path(options.model).name, options.model, small, small)
        return
    bundled = locate(BUNDLED, home)
    if not torch.cuda.is_available():
        yield Model(BUNDLED.removeprefix("bundled:"), bundled, small, small)
        return
    for name, tokens in (("0.5B", 16_384), ("1.5B", 8_192), ("7B", 4_096)):
        folder = shapes.save(name, kept / name, bundled, "cuda")
        yield Model(name, str(folder), tokens, 1_024)


def fits(folder: str, method: Method) -> bool:
    """Full tuning needs 16 bytes a parameter before the first activation."""
    if method != "full" or not torch.cuda.is_available():
        return True
    weights = sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))
    return 16 * weights / 2 < 0.8 * torch.cuda.get_device_properties(0).total_memory


def some(model: Model, count: int) -> tuple[list[Row], float]:
    """`count` rows of at most `cutoff` tokens, the same each time, and their mean length."""
    renderer = Renderer(models.tokenizer(model.folder))
    rows = list(formats.rows(Source(path=DATA / QUESTIONS)))
    random.Random(0).shuffle(rows)
    out, lengths = [], []
    for row in rows:
        length = len(renderer.row(row).input_ids)
        if length <= model.cutoff:
            out.append(row)
            lengths.append(length)
        if len(out) == count:
            return out, statistics.mean(lengths)
    raise SystemExit(f"{DATA / QUESTIONS} has fewer than {count} rows of {model.cutoff} tokens")


def cases(model: Model, options: argparse.Namespace, folder: Path, peak: float) -> Iterator[Case]:
    """Padded and packed batches hold about the same number of tokens. `peak`: see Case."""
    # A GPU needs more than five batches of its size to be measured.
    count = options.rows * (50 if torch.cuda.is_available() else 1)
    rows, mean = some(model, count)
    file = folder / f"{model.name}.jsonl"
    write(rows, file)
    for method in METHODS:
        if method not in options.only.split(","):
            continue
        if not fits(model.folder, method):
            sys.stderr.write(f"{model.name} {method}: left out, it would not fit\n")
            continue
        for packing in (False, True):
            batch = model.tokens / (model.cutoff if packing else mean)
            yield Case(
                folder=model.folder,
                rows=file,
                output=folder / "run",
                method=method,
                packing=packing,
                batch=max(1, round(batch)),
                cutoff=model.cutoff,
                peak=peak,
            )


def in_turn(case: Case, rounds: int) -> dict[Way, list[Measured]]:
    """ours, trl, trl, ours, ..., each in a fresh process that has its imports behind it."""
    done: dict[Way, list[Measured]] = {"ours": [], "trl": []}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bench.train_one", "trl", "bitsandbytes", "peft"])
    for n in range(rounds):
        for way in get_args(Way)[:: 1 if n % 2 == 0 else -1]:
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                begun = time.monotonic()
                done[way].append(pool.submit(measure, case, way).result())
            sys.stderr.write(
                f"{case.method} {'packed' if case.packing else 'padded'} {way}:"
                f" {_speed(done[way][-1:]):.0f} tokens/s, {time.monotonic() - begun:.0f} s\n"
            )
    return done


def row(model: Model, case: Case, done: dict[Way, list[Measured]]) -> dict[str, Any]:
    ours, trl = done["ours"], done["trl"]
    return {
        "model": model.name,
        "method": case.method,
        "rows": f"{'packed' if case.packing else 'padded'} x {case.batch}",
        "tokens/s": round(_speed(ours), 1),
        "TRL tokens/s": round(_speed(trl), 1),
        "ratio": round(_speed(ours) / _speed(trl), 3),
        "processor ratio": round(_effort(trl) / _effort(ours), 3),
        "MFU": round(statistics.median(one.utilisation for one in ours), 3),
        "TRL MFU": round(statistics.median(one.utilisation for one in trl), 3),
        "peak MB": round(statistics.median(one.peak_mb for one in ours)),
        "TRL peak MB": round(statistics.median(one.peak_mb for one in trl)),
        "padding": _padding(ours),
        "TRL padding": _padding(trl),
    }


def _speed(runs: Sequence[Measured]) -> float:
    return statistics.median(one.tokens / one.seconds for one in runs)


def _effort(runs: Sequence[Measured]) -> float:
    """Processor seconds a token."""
    return statistics.median(one.processor_seconds / one.tokens for one in runs)


def _padding(runs: Sequence[Measured]) -> str:
    return f"{1 - runs[0].tokens / runs[0].slots:.1%}"


def costs(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What packing gains, and what QLoRA costs beside LoRA, from our runs."""
    found = {(r["model"], r["method"], r["rows"].split()[0]): r for r in rows}
    out = []
    for (model, method, kind), one in found.items():
        padded, lora = found.get((model, method, "padded")), found.get((model, "lora", kind))
        if kind == "packed" and padded:
            out.append(_beside(f"{model} {method}: packed beside padded", one, padded))
        if method == "qlora" and lora:
            out.append(_beside(f"{model} {kind}: QLoRA beside LoRA ({PUBLISHED})", one, lora))
    return out


def _beside(what: str, one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {
        "what": what,
        "time": round(other["tokens/s"] / one["tokens/s"], 3),
        "memory": round(one["peak MB"] / other["peak MB"], 3),
    }


def missed(rows: Sequence[dict[str, Any]], *, gpu: bool) -> list[str]:
    """Which bounds do not hold, and where."""
    said = []
    names = {id(r): f"{r['model']} {r['method']} {r['rows']}" for r in rows}
    if slow := [names[id(r)] for r in rows if r["ratio"] < FLOOR]:
        said.append(f"slower than {FLOOR} of TRL: {', '.join(slow)}")
    lora = [r for r in rows if gpu and r["method"] == "lora"]
    if idle := [names[id(r)] for r in lora if r["MFU"] < UTILISATION]:
        said.append(f"LoRA below {UTILISATION:.0%} of the GPU: {', '.join(idle)}")
    return said


def table(rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        print("| " + " | ".join(rows[0]) + " |")
        print("| " + " | ".join("---" for _ in rows[0]) + " |")
        for one in rows:
            print("| " + " | ".join(str(value) for value in one.values()) + " |")
        print()


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    arguments.add_argument("--rounds", type=int, default=2)
    arguments.add_argument("--rows", type=int, default=12, help="50 times as many on a GPU")
    arguments.add_argument("--only", default=",".join(METHODS), help="methods, with commas")
    arguments.add_argument("--model", help="a model folder in place of the usual ones")
    arguments.add_argument("--quick", action="store_true", help="one round of few rows: a test")
    options = arguments.parse_args()
    if options.quick:
        options.rounds, options.rows = 1, 8
    # Once, before anything else runs: it is the processor's, whatever is trained on it.
    peak = flops.peak(torch.bfloat16 if device.has_bf16() else torch.float32)
    rows, every = [], []
    with tempfile.TemporaryDirectory(prefix="vademecum-bench-") as folder:
        for model in chosen(options, load().home, Path(folder)):
            for case in cases(model, options, Path(folder), peak):
                done = in_turn(case, options.rounds)
                rows.append(row(model, case, done))
                measured: dict[str, Any] = {way: [asdict(x) for x in done[way]] for way in done}
                every.append({"method": case.method, "packing": case.packing, **measured})
    table(rows)
    table(costs(rows))
    print(f"{device.name()}, {'bfloat16' if device.has_bf16() else 'float32'}")
    if options.json:
        runs.write_json(
            options.json,
            {
                "rows": rows,
                "costs": costs(rows),
                "runs": every,
                "device": device.name(),
                "bf16": device.has_bf16(),
                "versions": runs.versions(),
                "revision": runs.revision(),
            },
        )
    if not options.quick and (said := missed(rows, gpu=torch.cuda.is_available())):
        sys.exit("\n".join(said))


if __name__ == "__main__":
    main()
