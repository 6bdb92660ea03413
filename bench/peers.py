"""The same passages and vectors in Vademecum, txtai and LlamaIndex (FAISS + BM25), in one run.

    python -m bench.peers [--json] [--collection obliqa] [--passages 3000] [--queries 300]

Where they are not installed it says how to, and ends. Passages are cut once, by Vademecum's
chunker, and embedded once; every system gets the pieces with their vectors, and searches by
question and vector, so that what is compared is the system. Each is set up as its documentation
shows a hybrid search: txtai `hybrid=True`; LlamaIndex's reciprocal fusion of FAISS (flat) and BM25.
A change is the replacement of one piece by a text with a word of its own; its time ends when a
search has found it. VADEMECUM_DATA names the folder of collections.
"""

import os
import secrets
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from app.ranking import fold, ndcg, recall
from bench.evidence import sample
from bench.server import parser, percentiles, show
from kb.chunking import chunk
from kb.collection import Collection, read
from kb.embedding import Embedder, open_embedder
from kb.feed import Feed
from kb.layout import DATABASE, LEXICAL
from kb.ledger import Ledger
from kb.lexical import LexicalIndex
from kb.records import Parsed, Piece
from kb.search import KnowledgeBase
from kb.settings import KbSettings, load
from kb.store import Store, to_embed

Vectors = npt.NDArray[np.float32]
Lookup = Callable[[Sequence[str]], Vectors]
"""Texts -> their vectors, which were computed before."""
INSTALL = (
    "pip install txtai llama-index-core llama-index-vector-stores-faiss llama-index-retrievers-bm25"
)
CHANGES = 10
DEPTH = 30  # pieces asked for, so that ten documents are left


@dataclass(frozen=True, slots=True)
class Cut:
    """A piece of a passage; its id is the passage's, `#`, a number."""

    id: str
    title: str
    text: str

    @property
    def full(self) -> str:
        """What is embedded, and what a system without a field for titles indexes."""
        return to_embed(self.title, "", self.text)


class System(Protocol):
    """`add` and `change` return when a search can find the pieces."""

    name: str

    def add(self, cuts: Sequence[Cut]) -> None: ...

    def change(self, cut: Cut) -> None: ...

    def search(self, question: str, k: int) -> list[str]: ...


class Vademecum:
    """A piece is a document of one passage; written as ingest writes, synced to disk."""

    name = "Vademecum"

    def __init__(self, folder: Path, embedder: Embedder, settings: KbSettings, look: Lookup):
        self._look = look
        self._store = Store(folder / DATABASE, create=True)
        for key, value in {"id": "vs_peers", "embedder": embedder.name}.items():
            self._store.set_meta(key, value)
        self._ledger = Ledger(self._store)
        self._lexical = LexicalIndex(folder / LEXICAL, readonly=False)
        self._reader = KnowledgeBase(folder, embedder, settings)

    def add(self, cuts: Sequence[Cut]) -> None:
        before = self._store.generation()
        vectors = self._look([cut.full for cut in cuts])
        with self._store.transaction():
            for cut, vector in zip(cuts, vectors, strict=True):
                file = self._ledger.changed("peers", cut.id)
                parsed = Parsed(cut.text, cut.title)
                piece = Piece(0, len(cut.text), cut.text, "")
                self._store.put_document(file.id, "", parsed, [piece], vector.reshape(1, -1))
                self._ledger.completed(file, size=len(cut.text), mtime_ns=0)
        self._lexical.catch_up(Feed(self._store).changes(before))
        self._reader.catch_up()

    def change(self, cut: Cut) -> None:
        self.add([cut])

    def search(self, question: str, k: int) -> list[str]:
        found = self._reader.search_vector(question, self._look([question])[0], k)
        return [hit.filename for hit in found.hits]


class Txtai:
    name = "txtai"

    def __init__(self, look: Lookup) -> None:
        from txtai import Embeddings

        def transform(texts: Sequence[str]) -> Vectors:  # it takes functions only
            return look(texts)

        self._index = Embeddings({"method": "external", "transform": transform, "hybrid": True})

    def add(self, cuts: Sequence[Cut]) -> None:
        self._index.index([(cut.id, cut.full) for cut in cuts])

    def change(self, cut: Cut) -> None:
        self._index.upsert([(cut.id, cut.full)])

    def search(self, question: str, k: int) -> list[str]:
        return [str(piece) for piece, _ in self._index.search(question, k)]


class LlamaIndex:
    """FAISS with ids, since the plain FAISS store cannot delete; BM25 cannot either: made anew."""

    name = "LlamaIndex"

    def __init__(self, look: Lookup, dimensions: int) -> None:
        import faiss
        from llama_index.core.embeddings import BaseEmbedding
        from llama_index.vector_stores.faiss import FaissMapVectorStore

        class Known(BaseEmbedding):  # type: ignore[misc]
            def _get_text_embedding(self, text: str) -> list[float]:
                return [float(x) for x in look([text])[0]]

            _get_query_embedding = _get_text_embedding

            async def _aget_query_embedding(self, query: str) -> list[float]:
                return self._get_query_embedding(query)

        self._embed = Known()
        self._vectors = FaissMapVectorStore(faiss.IndexIDMap2(faiss.IndexFlatIP(dimensions)))
        self._nodes: dict[str, Any] = {}

    def add(self, cuts: Sequence[Cut]) -> None:
        from llama_index.core import StorageContext, VectorStoreIndex
        from llama_index.core.schema import TextNode

        self._nodes = {cut.id: TextNode(id_=cut.id, text=cut.full) for cut in cuts}
        context = StorageContext.from_defaults(vector_store=self._vectors)
        self._index = VectorStoreIndex(
            list(self._nodes.values()), storage_context=context, embed_model=self._embed
        )
        self._fuse()

    def change(self, cut: Cut) -> None:
        from llama_index.core.schema import TextNode

        self._index.delete_nodes([cut.id], delete_from_docstore=True)
        self._nodes[cut.id] = TextNode(id_=cut.id, text=cut.full)
        self._index.insert_nodes([self._nodes[cut.id]])
        self._fuse()

    def search(self, question: str, k: int) -> list[str]:
        return [found.node.node_id for found in self._retriever.retrieve(question)][:k]

    def _fuse(self) -> None:
        from llama_index.core.llms import MockLLM
        from llama_index.core.retrievers import QueryFusionRetriever
        from llama_index.retrievers.bm25 import BM25Retriever

        nodes = list(self._nodes.values())
        self._retriever = QueryFusionRetriever(
            [
                self._index.as_retriever(similarity_top_k=2 * DEPTH),
                BM25Retriever.from_defaults(nodes=nodes, similarity_top_k=2 * DEPTH),
            ],
            llm=MockLLM(),
            mode="reciprocal_rerank",
            num_queries=1,
            similarity_top_k=DEPTH,
            use_async=False,
        )


def measure(system: System, cuts: Sequence[Cut], asked: Collection, look: Lookup) -> dict[str, Any]:
    begun = time.perf_counter()
    system.add(cuts)
    seconds = time.perf_counter() - begun
    system.search(asked.queries[0].text, DEPTH)  # the first one loads code
    searches, gains, recalls = [], [], []
    for query in asked.queries:
        begun = time.perf_counter()
        found = system.search(query.text, DEPTH)
        searches.append(time.perf_counter() - begun)
        ranked = fold(piece.rpartition("#")[0] for piece in found)
        gains.append(ndcg(ranked, query.relevance))
        recalls.append(recall(ranked, query.relevance))
    changes = [_change(system, cut.id, look) for cut in cuts[:: len(cuts) // CHANGES][:CHANGES]]
    known = [seconds for seconds in changes if seconds is not None]
    return {
        "system": system.name,
        "ndcg@10": round(float(np.mean(gains)), 4),
        "recall@10": round(float(np.mean(recalls)), 4),
        "search p50 ms": percentiles(searches)["p50"],
        "search p95 ms": percentiles(searches)["p95"],
        "pieces indexed per s": round(len(cuts) / seconds),
        "change to found p50 ms": percentiles(known)["p50"] if known else None,
        "changes not found": changes.count(None),
    }


def _change(system: System, piece: str, look: Lookup) -> float | None:
    """Seconds; None where the first search after the change does not find it."""
    word = f"q{secrets.token_hex(5)}"
    cut = Cut(piece, "", f"The {word} procedure is signed by the head of the ward.")
    look([cut.full, f"{word} procedure"])  # embedding takes all of them as long
    begun = time.perf_counter()
    system.change(cut)
    found = piece in system.search(f"{word} procedure", DEPTH)
    return time.perf_counter() - begun if found else None


class Known:
    """The vectors of the pieces and of the questions, and of whatever else comes, at need."""

    def __init__(self, embedder: Embedder, cuts: Sequence[Cut], questions: Sequence[str]) -> None:
        self._embedder = embedder
        texts = sorted({cut.full for cut in cuts}, key=len)
        self._known = dict(zip(texts, embedder.passages(texts), strict=True))
        self._known.update(zip(questions, embedder.queries(questions), strict=True))

    def __call__(self, texts: Sequence[str]) -> Vectors:
        for text in texts:
            if text not in self._known:
                self._known[text] = self._embedder.queries([text])[0]
        return np.stack([self._known[text] for text in texts])


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--collection", default="obliqa")
    arguments.add_argument("--passages", type=int, default=3000)
    arguments.add_argument("--queries", type=int, default=300)
    options = arguments.parse_args()
    if missing := [name for name in ("txtai", "llama_index") if not find_spec(name)]:
        rows = [{"not installed": name, "to install it": INSTALL} for name in missing]
        show(rows, {"not installed": missing, "to install them": INSTALL}, options.json)
        return
    data = Path(os.environ.get("VADEMECUM_DATA", "../shared/data"))
    configuration = load()
    settings = configuration.section("kb", KbSettings)
    embedder = open_embedder(settings, configuration.home)
    asked = sample(read(data / options.collection), options.queries, options.passages)
    cuts = [
        Cut(f"{passage.id}#{n}", passage.title, piece.text)
        for passage in asked.passages
        for n, piece in enumerate(chunk(passage.text, settings.chunk_tokens))
    ]
    begun = time.perf_counter()
    known = Known(embedder, cuts, [query.text for query in asked.queries])
    embedding = round(len(cuts) / (time.perf_counter() - begun), 1)
    with tempfile.TemporaryDirectory() as folder:
        systems: list[System] = [
            Vademecum(Path(folder), embedder, settings, known),
            Txtai(known),
            LlamaIndex(known, embedder.dimensions),
        ]
        rows = [measure(system, cuts, asked, known) for system in systems]
    result = {
        "collection": options.collection,
        "passages": len(asked.passages),
        "pieces": len(cuts),
        "queries": len(asked.queries),
        "pieces embedded per s, the same for all": embedding,
        "versions": {name: version(name) for name in ("txtai", "llama-index-core", "bm25s")},
    }
    show(rows, {"rows": rows, **result}, options.json)


if __name__ == "__main__":
    main()
