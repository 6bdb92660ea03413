"""How fast this processor embeds: torch in float32 and bfloat16, OpenVINO with 8-bit weights.

    python -m bench.encode [--json] [--passages 200] [--rounds 3]

The same passages (stard and obliqa, half each, of VADEMECUM_DATA) through the bundled embedder, one
way after the other, round by round: medians of processor seconds, the lowest cosine to float32, and
how long one question takes (wall time, ten in each round).
The converted weights are kept where the server keeps them, under the home.
"""

import itertools
import json
import os
import re
import statistics
import time
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from bench.server import parser, percentiles, show
from kb import int8
from kb.models import locate
from kb.settings import load

DATA = Path(os.environ.get("VADEMECUM_DATA", "../shared/data"))
MODEL = "bundled:multilingual-e5-small"
QUESTION = "query: 试用期最长多久 labour contract"
_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8")


def passages(collection: str, n: int) -> list[str]:
    """Every tenth passage from the beginning, cut to a passage's usual size."""
    with (DATA / collection / "corpus.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in itertools.islice(lines, 0, 10 * n, 10)]
    size = 150 if collection == "stard" else 600
    return [f"passage: {row['title']} {row['text']}"[:size] for row in rows]


def encode(model: SentenceTransformer, texts: list[str]) -> tuple[Any, float]:
    """Unit vectors, and the processor seconds that they took."""
    begun = time.process_time()
    vectors = model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    return vectors.astype("float32"), time.process_time() - begun


def ask(model: SentenceTransformer) -> float:
    """Seconds that one question takes."""
    begun = time.perf_counter()
    model.encode(QUESTION, show_progress_bar=False)
    return time.perf_counter() - begun


def processor() -> list[str]:
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    return [flag for flag in _FLAGS if re.search(rf"\b{flag}\b", text)]


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--passages", type=int, default=200)
    arguments.add_argument("--rounds", type=int, default=3)
    options = arguments.parse_args()
    home = load().home
    folder = locate(MODEL, home)
    models = {
        "torch float32": SentenceTransformer(folder, device="cpu"),
        "torch bfloat16": SentenceTransformer(
            folder, device="cpu", model_kwargs={"dtype": "bfloat16"}
        ),
        "OpenVINO int8 weights": SentenceTransformer(folder, device="cpu"),
    }
    if not int8.hasten(models["OpenVINO int8 weights"], home / "models" / "int8"):
        raise SystemExit("the model cannot be converted")
    texts = [t for c in ("stard", "obliqa") for t in passages(c, options.passages // 2)]
    exact, _ = encode(models["torch float32"], texts)
    spent: dict[str, list[float]] = {name: [] for name in models}
    questions: dict[str, list[float]] = {name: [] for name in models}
    cosine: dict[str, float] = {}
    for _ in range(options.rounds):
        for name, model in models.items():
            vectors, seconds = encode(model, texts)
            spent[name].append(seconds)
            questions[name] += [ask(model) for _ in range(10)]
            cosine[name] = float((vectors * exact).sum(axis=1).min())
    base = statistics.median(spent["torch float32"])
    rows = [
        {
            "way": name,
            "passages per processor second": round(len(texts) / statistics.median(times), 1),
            "beside float32": round(base / statistics.median(times), 2),
            "lowest cosine": round(cosine[name], 5),
            "question p50 ms": percentiles(questions[name])["p50"],
            "question p95 ms": percentiles(questions[name])["p95"],
        }
        for name, times in spent.items()
    ]
    result = {"rows": rows, "passages": len(texts), "processor": processor()}
    show(rows, {**result, "int8 is used here": int8.suits()}, options.json)


if __name__ == "__main__":
    main()
