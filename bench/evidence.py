"""Fit and judge the chance that passages hold an answer (`app/evidence.py`), on public questions.

    python -m bench.evidence [--json] [--threshold 0.15]

Every question counts twice: with its passage in the knowledge base (answerable), and with the hits
of that passage taken out (unanswerable; its neighbours, on the same subject, remain). Prints the
coefficients, and for each collection the share of the unanswerable that is refused and of the
answerable that is wrongly refused. VADEMECUM_DATA names the folder of collections. The first run
embeds some 8,000 passages.
"""

import hashlib
import os
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from app.evidence import chance
from bench.server import parser, show
from kb.collection import Collection, Query, read
from kb.collection_kb import build
from kb.embedding import open_embedder
from kb.records import Found, Hit
from kb.search import KnowledgeBase
from kb.settings import KbSettings, load

# name: (questions, passages at most)
COLLECTIONS = {
    "xquad_en_zh/en-en": (600, 10_000),
    "xquad_en_zh/zh-zh": (600, 10_000),
    "cmrc2018_trial": (500, 10_000),
    "obliqa": (300, 1_500),
    "medquad": (300, 1_500),
    "stard": (300, 2_500),
}


def sample(whole: Collection, questions: int, passages: int) -> Collection:
    """Some questions with their passages, and others to fill up."""
    rng = random.Random(0)
    asked = rng.sample(whole.queries, min(questions, len(whole.queries)))
    needed = {i for query in asked for i in query.relevance}
    others = [p for p in whole.passages if p.id not in needed]
    filler = rng.sample(others, max(0, min(len(others), passages - len(needed))))
    kept = (*(p for p in whole.passages if p.id in needed), *filler)
    digest = hashlib.sha256("\n".join(p.text for p in kept).encode()).hexdigest()
    return Collection(kept, tuple(asked), digest)


def twice(kb: KnowledgeBase, query: Query) -> list[tuple[Found, bool]]:
    """The search as it is, and as it would be without the relevant passages."""
    whole = kb.search(query.text, 40)
    rest: tuple[Hit, ...] = tuple(h for h in whole.hits if h.filename not in query.relevance)
    return [(whole, True), (Found(rest, 0, (), whole.background), False)]


def fit(cases: list[tuple[Found, bool]]) -> dict[str, float]:
    """The coefficients that `app/evidence.py` holds."""
    rows = [(f.hits[0].cosine, f.background or 0.0, f.hits[0].coverage) for f, _ in cases if f.hits]
    labels = [label for f, label in cases if f.hits]
    # In tenths of a cosine, so that the penalty weighs all features alike.
    scaled = np.asarray(rows) * [10, 10, 1]
    model = LogisticRegression(C=10, max_iter=1000).fit(scaled, labels)
    cosine, background, coverage = model.coef_[0]
    names = ("cosine", "background", "coverage", "bias")
    values = (10 * cosine, 10 * background, coverage, model.intercept_[0])
    return {name: round(float(value), 2) for name, value in zip(names, values, strict=True)}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--threshold", type=float, default=0.15)
    options = arguments.parse_args()
    data = Path(os.environ.get("VADEMECUM_DATA", "../shared/data"))
    configuration = load()
    settings = configuration.section("kb", KbSettings)
    embedder = open_embedder(settings, configuration.home)
    everything: list[tuple[Found, bool]] = []
    rows: list[dict[str, Any]] = []
    for name, (questions, passages) in COLLECTIONS.items():
        print(f"{name} ...", file=sys.stderr)
        collection = sample(read(data / name), questions, passages)
        folder = build(collection, embedder, settings, configuration.home, lambda _: None)
        kb = KnowledgeBase(folder, embedder, settings)
        cases = [case for query in collection.queries for case in twice(kb, query)]
        kb.close()
        everything += cases
        low = [(chance(found) < options.threshold, label) for found, label in cases]
        rows.append(
            {
                "collection": name,
                "questions": len(collection.queries),
                "refused": round(float(np.mean([r for r, answerable in low if not answerable])), 3),
                "wrongly refused": round(float(np.mean([r for r, label in low if label])), 3),
            }
        )
    show(rows, {"evidence": rows, "fit": fit(everything)}, options.json)


if __name__ == "__main__":
    main()
