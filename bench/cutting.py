"""What do the size of passages, their context and the question's keywords do to finding?

    python -m bench.cutting [--json] [--queries 200]

nDCG@10 of samples of the collections in VADEMECUM_DATA: a row for each way to cut documents and to
embed what was cut, then for each way to ask the shipped one. A window is a passage that shares its
first half with the one before. Takes 23 minutes of a processor; nothing is kept.
"""

import os
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rjieba

from app.ranking import fold, ndcg
from bench.evidence import sample
from bench.server import parser, show
from kb.chunking import chunk
from kb.collection import Collection, Passage, read
from kb.embedding import Embedder, open_embedder
from kb.feed import Feed
from kb.layout import DATABASE, LEXICAL
from kb.ledger import Ledger
from kb.lexical import LexicalIndex
from kb.records import Parsed, Piece
from kb.search import KnowledgeBase
from kb.settings import KbSettings, load
from kb.store import Store, to_embed
from kb.words import content_words, words

SAMPLES = {
    "obliqa": 1500,
    "medquad": 500,
    "stard": 1500,
    "lawbench_article_lookup": 1500,
    "xquad_en_zh/en-en": 240,
    "xquad_en_zh/zh-zh": 240,
    "cmrc2018_trial": 256,
}
"""Passages of each: those of its questions, and others."""
DEPTH = 60
Vectors = npt.NDArray[np.float32]
Cutter = Callable[[str], list[Piece]]
Asked = tuple[str, Vectors]


@dataclass(frozen=True, slots=True)
class Way:
    """How a document is cut, and whether its title stands before what is embedded."""

    cut: Cutter
    context: bool = True


def of_size(tokens: int) -> Cutter:
    return lambda text: chunk(text, tokens)


def windows(tokens: int) -> Cutter:
    """Halves of a passage, each with the next."""

    def cut(text: str) -> list[Piece]:
        halves = chunk(text, tokens // 2)
        pairs = zip(halves, halves[1:] or halves, strict=False)
        return [Piece(a.start, b.end, text[a.start : b.end], a.heading) for a, b in pairs]

    return cut


def both(*cutters: Cutter) -> Cutter:
    return lambda text: [piece for cutter in cutters for piece in cutter(text)]


WAYS = {
    "shipped: 160 tokens, context": Way(of_size(160)),
    "160, no context": Way(of_size(160), context=False),
    "80": Way(of_size(80)),
    "240": Way(of_size(240)),
    "480": Way(of_size(480)),
    "windows of 160": Way(windows(160)),
    "windows of 320": Way(windows(320)),
    "80 and 240, the better of them": Way(both(of_size(80), of_size(240))),
}


class Known:
    """Vectors of passages, each text embedded once."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._known: dict[str, Vectors] = {}

    def __call__(self, texts: Sequence[str]) -> Vectors:
        new = sorted({text for text in texts if text not in self._known}, key=len)
        self._known.update(zip(new, self._embedder.passages(new), strict=True))
        return np.stack([self._known[text] for text in texts])


def build(
    folder: Path, passages: Sequence[Passage], way: Way, embedder: Embedder, known: Known
) -> None:
    """A knowledge base of the passages, each a document."""
    store = Store(folder / DATABASE, create=True)
    store.set_meta("id", "vs_cutting")
    store.set_meta("embedder", embedder.name)
    ledger = Ledger(store)
    cut = [way.cut(p.text) for p in passages]
    title = [p.title if way.context else "" for p in passages]
    texts = [[to_embed(t, c.heading, c.text) for c in cs] for t, cs in zip(title, cut, strict=True)]
    known([text for some in texts for text in some])
    with store.transaction():
        for passage, pieces, some in zip(passages, cut, texts, strict=True):
            file = ledger.changed("cutting", passage.id)
            parsed = Parsed(passage.text, passage.title)
            if pieces:
                store.put_document(file.id, "", parsed, pieces, known(some))
            ledger.completed(file, size=len(passage.text), mtime_ns=0)
    index = LexicalIndex(folder / LEXICAL, readonly=False)
    index.catch_up(Feed(store).changes(0))
    index.close()
    store.close()


def score(kb: KnowledgeBase, collection: Collection, asked: Sequence[Asked]) -> dict[str, float]:
    """nDCG@10 of both modes, a text and a vector for each question."""
    out = {}
    for mode in ("hybrid", "dense"):
        gains = []
        for query, (text, vector) in zip(collection.queries, asked, strict=True):
            found = kb.search_vector(text, vector, DEPTH, mode=mode)
            gains.append(ndcg(fold(hit.filename for hit in found.hits), query.relevance))
        out[mode] = round(float(np.mean(gains)), 3)
    return out


def keywords(question: str) -> str:
    """The question without its common words."""
    wanted = set(content_words(question))
    tokens = [t for run in re.findall(r"\w+", question) for t in rjieba.cut(run)]
    return " ".join(t for t in tokens if wanted.intersection(words(t))) or question


def ways_to_ask(
    kb: KnowledgeBase, texts: Sequence[str], embedder: Embedder
) -> dict[str, list[Asked]]:
    plain = embedder.queries(texts)
    bare = embedder.queries([keywords(text) for text in texts])
    mean = plain + bare
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    rare = [kb.search_vector(t, v, 1).keywords for t, v in zip(texts, plain, strict=True)]
    half = [" ".join(found[: (len(found) + 1) // 2]) for found in rare]
    return {
        "asked by its keywords' vector": list(zip(texts, bare, strict=True)),
        "by the mean of both vectors": list(zip(texts, mean, strict=True)),
        "by the rarer half of its words": list(zip(half, plain, strict=True)),
    }


def measure(collection: Collection, embedder: Embedder) -> dict[str, dict[str, float]]:
    known, out = Known(embedder), {}
    texts = [query.text for query in collection.queries]
    asked = list(zip(texts, embedder.queries(texts), strict=True))
    for name, way in WAYS.items():
        with tempfile.TemporaryDirectory() as folder:
            build(Path(folder), collection.passages, way, embedder, known)
            kb = KnowledgeBase(Path(folder), embedder, KbSettings())
            out[name] = score(kb, collection, asked)
            if way is WAYS["shipped: 160 tokens, context"]:
                for said, others in ways_to_ask(kb, texts, embedder).items():
                    out[said] = score(kb, collection, others)
            kb.close()
    return out


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--queries", type=int, default=200, help="of each collection at most")
    arguments.add_argument("--collections", default=",".join(SAMPLES))
    options = arguments.parse_args()
    data = Path(os.environ.get("VADEMECUM_DATA", "../shared/data"))
    configuration = load()
    embedder = open_embedder(configuration.section("kb", KbSettings), configuration.home)
    found = {}
    for name in options.collections.split(","):
        collection = sample(read(data / name), options.queries, SAMPLES[name])
        found[name] = measure(collection, embedder)
    ways = next(iter(found.values()))
    rows: list[dict[str, Any]] = []
    for mode in ("hybrid", "dense"):
        for way in ways:
            scores = {name: found[name][way][mode] for name in found}
            mean = round(float(np.mean(list(scores.values()))), 4)
            rows.append({"mode": mode, "way": way, **scores, "mean": mean})
    show(rows, {"rows": rows}, options.json)


if __name__ == "__main__":
    main()
