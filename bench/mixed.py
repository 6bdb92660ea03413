"""Do questions find what stands in the other language, where passages of their own stand beside?

    python -m bench.mixed [--json]

Half of xquad's paragraphs in English and the other half in Chinese make one knowledge base; it is
asked every question in both languages, with and without what `kb.languages` does. Then what is
refused (of 150 questions each): with the passage that answers, and without it. VADEMECUM_DATA names
the folder of collections.
"""

import hashlib
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.eval_retrieval import evaluate
from bench.evidence import refused, twice
from bench.server import parser, show
from kb.collection import Collection, Passage, Query, read
from kb.collection_kb import build
from kb.embedding import Embedder, open_embedder
from kb.search import KnowledgeBase
from kb.settings import KbSettings, load

LANGUAGES = ("en", "zh")


class Untold:
    """The same embedder, whose languages nobody knows of."""

    languages = None

    def __init__(self, embedder: Embedder) -> None:
        self.name, self.dimensions = embedder.name, embedder.dimensions
        self.queries, self.passages = embedder.queries, embedder.passages


def mixed(folder: Path) -> Iterator[tuple[str, Collection]]:
    """The questions by their language and that of the passage that answers, `en-zh`; all of the
    same passages."""
    halves = {language: read(folder / f"{language}-{language}") for language in LANGUAGES}
    ids = sorted(passage.id for passage in halves["en"].passages)
    of = {"en": set(ids[::2]), "zh": set(ids[1::2])}
    passages = tuple(
        Passage(f"{language}_{p.id}", p.title, p.text)
        for language in LANGUAGES
        for p in halves[language].passages
        if p.id in of[language]
    )
    digest = hashlib.sha256("\n".join(p.text for p in passages).encode()).hexdigest()
    for asked in LANGUAGES:
        for language in LANGUAGES:
            queries = tuple(
                Query(q.id, q.text, {f"{language}_{i}": r for i, r in q.relevance.items()})
                for q in halves[asked].queries
                if of[language].issuperset(q.relevance)
            )
            yield f"{asked}-{language}", Collection(passages, queries, digest)


def main() -> None:
    options = parser(__doc__).parse_args()
    data = Path(os.environ.get("VADEMECUM_DATA", "../shared/data")) / "xquad_en_zh"
    configuration = load()
    settings = configuration.section("kb", KbSettings)
    known = open_embedder(settings, configuration.home)
    embedders: dict[str, Embedder] = {"as they come": Untold(known), "moved": known}
    rows: list[dict[str, Any]] = []
    for pair, collection in mixed(data):
        folder = build(collection, known, settings, configuration.home, lambda _: None)
        row: dict[str, Any] = {"question-passage": pair, "questions": len(collection.queries)}
        for name, embedder in embedders.items():
            modes = evaluate(collection, folder, embedder, settings)["modes"]
            for mode in ("hybrid", "dense"):
                for metric in ("ndcg@10", "recall@10"):
                    row[f"{mode} {metric}, {name}"] = modes[mode][metric]
            kb = KnowledgeBase(folder, embedder, settings)
            few = random.Random(0).sample(collection.queries, 150)
            cases = [case for query in few for case in twice(kb, query)]
            kb.close()
            for said, answerable in (("wrongly refused", True), ("refused", False)):
                row[f"{said}, {name}"] = refused([c for c in cases if c[2] is answerable])
        rows.append(row)
    show(rows, {"rows": rows}, options.json)


if __name__ == "__main__":
    main()
