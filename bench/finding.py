"""How well and how quickly questions find their passages, collection by collection.

    python -m bench.finding [--json] [--collections stard,obliqa,...] [--queries N]

`vademecum eval retrieval` of each, in one table. `beside` is hybrid's nDCG@10 less the better of
its halves. A collection is embedded once and kept in the home: an hour for all on two quiet cores.
VADEMECUM_DATA names the folder of collections.
"""

import os
import sys
from pathlib import Path
from typing import Any

from app.eval_retrieval import evaluate
from bench.server import parser, show
from kb.collection import read
from kb.collection_kb import build
from kb.embedding import open_embedder
from kb.settings import KbSettings, load

COLLECTIONS = (
    *(f"xquad_en_zh/{pair}" for pair in ("en-en", "zh-zh", "en-zh", "zh-en")),
    "obliqa",
    "medquad",
    "lawbench_article_lookup",
    "stard",
    "zh_medical_dialogue",
    "cmrc2018_trial",
)


def row(name: str, report: dict[str, Any]) -> dict[str, Any]:
    modes = report["modes"]
    ndcg = {mode: modes[mode]["ndcg@10"] for mode in ("hybrid", "dense", "lexical")}
    return {
        "collection": name,
        "passages": report["passages"],
        "queries": report["queries"],
        **ndcg,
        "beside": round(ndcg["hybrid"] - max(ndcg["dense"], ndcg["lexical"]), 3),
        "recall@10 hybrid": modes["hybrid"]["recall@10"],
        "recall@10 dense": modes["dense"]["recall@10"],
        "search p50 ms": modes["hybrid"]["search_ms"]["p50"],
        "search p95 ms": modes["hybrid"]["search_ms"]["p95"],
    }


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--collections", default=",".join(COLLECTIONS))
    arguments.add_argument("--queries", type=int, help="of each collection at most")
    options = arguments.parse_args()
    data = Path(os.environ.get("VADEMECUM_DATA", "../shared/data"))
    configuration = load()
    settings = configuration.section("kb", KbSettings)
    embedder = open_embedder(settings, configuration.home)
    rows = []
    for name in options.collections.split(","):
        print(f"{name} ...", file=sys.stderr)
        collection = read(data / name)
        folder = build(collection, embedder, settings, configuration.home, lambda _: None)
        rows.append(row(name, evaluate(collection, folder, embedder, settings, options.queries)))
    average = round(sum(r["beside"] for r in rows) / len(rows), 3)
    worst = min(r["beside"] for r in rows)
    show(rows, {"rows": rows, "beside on average": average, "worst": worst}, options.json)


if __name__ == "__main__":
    main()
