"""Fit and judge the chance that passages hold an answer (`app/evidence.py`), on public questions.

    python -m bench.evidence [--json] [--threshold 0.15]

Every question counts twice: with its passage in the knowledge base (answerable), and with the hits
of that passage taken out (unanswerable; its neighbours, on the same subject, remain). Where
questions and passages are of different languages, 400 questions on other subjects are asked too.
Prints the coefficients, within a language and across, and for each collection the share of the
unanswerable that is refused and of the answerable that is wrongly refused. VADEMECUM_DATA names the
folder of collections. The first run embeds some 8,000 passages.
"""

import hashlib
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
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
    "xquad_en_zh/en-zh": (600, 10_000),
    "xquad_en_zh/zh-en": (600, 10_000),
}
STRANGERS = {
    "xquad_en_zh/en-zh": ("obliqa", "medquad"),
    "xquad_en_zh/zh-en": ("stard", "cmrc2018_trial"),
}
"""Across languages: collections whose questions are on other subjects, 200 of each."""
Case = tuple[str, Found, bool]
"""A question, what was found, and whether that holds the answer."""


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


def twice(kb: KnowledgeBase, query: Query) -> list[Case]:
    """The search as it is, and as it would be without the relevant passages."""
    whole = kb.search(query.text, 40)
    rest: tuple[Hit, ...] = tuple(h for h in whole.hits if h.filename not in query.relevance)
    without = replace(whole, hits=rest)
    return [(query.text, whole, True), (query.text, without, False)]


def strangers(kb: KnowledgeBase, data: Path, names: Sequence[str]) -> list[Case]:
    asked = [q.text for n in names for q in random.Random(1).sample(read(data / n).queries, 200)]
    return [(question, kb.search(question, 40), False) for question in asked]


def fit(cases: Sequence[Case]) -> dict[str, float]:
    """The coefficients that `app/evidence.py` holds."""
    seen = [(f.hits[0], f.background or 0.0, label) for _, f, label in cases if f.hits]
    rows = [(best.cosine, background, best.coverage) for best, background, _ in seen]
    # In tenths of a cosine, so that the penalty weighs all features alike.
    scaled = np.asarray(rows) * [10, 10, 1]
    model = LogisticRegression(C=10, max_iter=1000).fit(scaled, [label for *_, label in seen])
    cosine, background, coverage = model.coef_[0]
    names = ("cosine", "background", "coverage", "bias")
    values = (10 * cosine, 10 * background, coverage, model.intercept_[0])
    return {name: round(float(value), 2) for name, value in zip(names, values, strict=True)}


def refused(cases: Sequence[Case], threshold: float = 0.15) -> float | None:
    """The share that is; None without cases."""
    low = [chance(question, found) < threshold for question, found, _ in cases]
    return round(float(np.mean(low)), 3) if low else None


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--threshold", type=float, default=0.15)
    options = arguments.parse_args()
    data = Path(os.environ.get("VADEMECUM_DATA", "../shared/data"))
    configuration = load()
    settings = configuration.section("kb", KbSettings)
    embedder = open_embedder(settings, configuration.home)
    within: list[Case] = []
    across: list[Case] = []
    rows: list[dict[str, Any]] = []
    for name, (questions, passages) in COLLECTIONS.items():
        print(f"{name} ...", file=sys.stderr)
        collection = sample(read(data / name), questions, passages)
        folder = build(collection, embedder, settings, configuration.home, lambda _: None)
        kb = KnowledgeBase(folder, embedder, settings)
        cases = [case for query in collection.queries for case in twice(kb, query)]
        others = strangers(kb, data, STRANGERS.get(name, ()))
        kb.close()
        (across if name in STRANGERS else within).extend(cases)
        rows.append(
            {
                "collection": name,
                "questions": len(collection.queries),
                "refused": refused([c for c in cases if not c[2]], options.threshold),
                "wrongly refused": refused([c for c in cases if c[2]], options.threshold),
                "other subjects refused": refused(others, options.threshold),
            }
        )
    fits = {"within a language": fit(within), "across": fit(across)}
    show(rows, {"evidence": rows, "fit": fits}, options.json)


if __name__ == "__main__":
    main()
