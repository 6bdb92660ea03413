"""How quick and how true searching 330,000 passages is, and how small a reader stays.

    python -m bench.scale [--json] [--work DIR] [--vectors FILE.npy] [--synthetic] [--queries N]

The passages are those of `bench.laws`, the questions stard's; VADEMECUM_DATA names the folder of
both. The knowledge base is built once, in --work (2 GB). Vectors are taken from --vectors and made
where that file lacks some, which takes about an hour on two quiet cores; --synthetic instead makes
them of those that are there, with noise, for a rough look: the result says so. Every figure of a
reader comes from a fresh process.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from app.eval_retrieval import resident_mb
from app.ranking import percentile
from bench.laws import embed, passages, statutes
from bench.server import parser, show
from kb.chunking import VERSION as CHUNKER
from kb.dense import as_codes
from kb.embedding import Embedder, FakeEmbedder, open_embedder
from kb.feed import Feed
from kb.layout import DATABASE, LEXICAL
from kb.ledger import Ledger
from kb.lexical import LexicalIndex
from kb.records import Parsed
from kb.search import KnowledgeBase, Mode
from kb.settings import KbSettings, load
from kb.store import Store

K = 10
_STATUTES = 50
"""Documents of one transaction."""
_CHANGED = 1000
"""Passages that change for the last measurement."""
Vectors = npt.NDArray[np.float32]


class NamedOnly(FakeEmbedder):
    """Stands for an embedder whose vectors are at hand, where its memory shall not be counted."""

    def __init__(self, name: str, dimensions: int) -> None:
        super().__init__(dimensions)
        self._named = name

    @property
    def name(self) -> str:
        return self._named


def floats(rows: list[bytes]) -> Vectors:
    return as_codes(rows).view(np.float16).astype(np.float32)


def questions(count: int) -> list[str]:
    file = Path(os.environ.get("VADEMECUM_DATA", "../shared/data")) / "stard" / "queries.jsonl"
    return [json.loads(line)["text"] for line in file.read_text("utf-8").splitlines()][:count]


# -- building ------------------------------------------------------------------------------------


def stand_in(kept: npt.NDArray[np.float16]) -> Vectors:
    """Vectors for all rows: those that are there, and for the others noisy copies of them."""
    (there,) = np.nonzero(kept.any(axis=1))
    (missing,) = np.nonzero(~kept.any(axis=1))
    rng = np.random.default_rng(0)
    out = np.array(kept, np.float32)
    noise = rng.standard_normal((len(missing), kept.shape[1])).astype(np.float32)
    out[missing] = out[rng.choice(there, len(missing))] + noise * 0.25 / kept.shape[1] ** 0.5
    return np.asarray(out / np.linalg.norm(out, axis=1, keepdims=True), np.float32)


def build(folder: Path, embedder: str, vectors: npt.NDArray[Any]) -> None:
    """A whole knowledge base: a document for each statute, and the lexical index."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    store = Store(folder / DATABASE, create=True)
    store.set_meta("id", "vs_scale")
    store.set_meta("embedder", embedder)
    store.set_meta("chunker", str(CHUNKER))
    put(store, list(statutes()), vectors)
    index = LexicalIndex(folder / LEXICAL, readonly=False)
    index.catch_up(Feed(store).changes(0))
    index.close()
    store.close()


def put(store: Store, texts: list[Any], vectors: npt.NDArray[Any]) -> None:
    """Store statutes with their vectors, rows in the order of their passages."""
    ledger, at = Ledger(store), 0
    for start in range(0, len(texts), _STATUTES):
        with store.transaction():
            for statute in texts[start : start + _STATUTES]:
                file = ledger.changed("laws", statute.path)
                mine = vectors[at : at + len(statute.pieces)].astype(np.float32)
                at += len(statute.pieces)
                parsed = Parsed(statute.text, statute.title)
                store.put_document(file.id, "", parsed, statute.pieces, mine)


def change(folder: Path) -> int:
    """Write statutes of a thousand passages again, as ingest would. Returns how many passages."""
    store = Store(folder / DATABASE)
    index = LexicalIndex(folder / LEXICAL, readonly=False)
    texts, count = [], 0
    for statute in statutes():
        texts.append(statute)
        count += len(statute.pieces)
        if count >= _CHANGED:
            break
    rows = store.rows(
        "SELECT vector FROM chunks WHERE dead_seq IS NULL ORDER BY id LIMIT ?", [count]
    )
    put(store, texts, floats([row["vector"] for row in rows]))
    index.catch_up(Feed(store).changes(index.generation))
    index.close()
    store.close()
    return count


# -- measuring, in a process of its own ----------------------------------------------------------


def timed(kb: KnowledgeBase, texts: list[str], vectors: Vectors, mode: Mode) -> dict[str, Any]:
    """Milliseconds, and those of them that the search's own thread computed: where other programs
    run too, the first say more of them than of the search."""
    seconds, computed = [], []
    for text, vector in zip(texts, vectors, strict=True):
        began, busy = time.perf_counter(), time.thread_time()
        kb.search_vector(text, vector, K, mode=mode)
        computed.append(time.thread_time() - busy)
        seconds.append(time.perf_counter() - began)
    return {**milliseconds(seconds), "computed": milliseconds(computed)}


def milliseconds(seconds: list[float]) -> dict[str, float]:
    return {f"p{p}": round(1000 * percentile(seconds, p / 100), 1) for p in (50, 95, 99)}


def measure_bare(folder: Path, texts: list[str], vectors: Vectors) -> dict[str, Any]:
    """A reader without an embedder: opening, memory, each mode, and a thousand changes."""
    store = Store(folder / DATABASE, readonly=True)
    embedder = NamedOnly(store.meta("embedder") or "", vectors.shape[1])
    store.close()
    before = resident_mb()
    began, busy = time.perf_counter(), time.process_time()
    kb = KnowledgeBase(folder, embedder, KbSettings())
    out: dict[str, Any] = {"open_s": round(time.perf_counter() - began, 2)}
    out["open_computed_s"] = round(time.process_time() - busy, 2)
    timed(kb, texts[:20], vectors[:20], "hybrid")
    out["search_ms"] = {mode: timed(kb, texts, vectors, mode) for mode in get_args(Mode)}
    out |= {"rss_mb": resident_mb(), "rss_before_opening_mb": before}
    out["changed_passages"] = change(folder)
    began = time.perf_counter()
    kb.catch_up()
    out["catch_up_ms"] = round(1000 * (time.perf_counter() - began), 1)
    out["search_after_changes_ms"] = timed(kb, texts, vectors, "hybrid")
    kb.close()
    return out


def measure_whole(folder: Path, texts: list[str]) -> dict[str, Any]:
    """A reader with its embedder: searches with the query's embedding, and all its memory."""
    configuration = load()
    embedder = open_embedder(configuration.section("kb", KbSettings), configuration.home)
    kb = KnowledgeBase(folder, embedder, KbSettings())
    for text in texts[:20]:
        kb.search(text, K)
    seconds = []
    for text in texts:
        began = time.perf_counter()
        kb.search(text, K)
        seconds.append(time.perf_counter() - began)
    kb.close()
    return {"search_and_embedding_ms": milliseconds(seconds), "rss_with_embedder_mb": resident_mb()}


def recall(folder: Path, texts: list[str], vectors: Vectors) -> dict[str, float]:
    """The share of the exact ten nearest that the dense half finds; one as near as the tenth
    counts, since many paragraphs of the law stand in several statutes."""
    store = Store(folder / DATABASE, readonly=True)
    best = np.full((len(vectors), 0), 0, np.float32)
    for _, rows in Feed(store).vectors(store.generation(), 50_000):
        best = np.hstack([best, vectors @ floats(rows).T])
        best = -np.sort(-best, axis=1)[:, :K]
    embedder = NamedOnly(store.meta("embedder") or "", vectors.shape[1])
    store.close()
    kb = KnowledgeBase(folder, embedder, KbSettings())
    shares = [
        sum(hit.cosine >= tenth - 1e-5 for hit in found.hits) / K
        for tenth, found in (
            (best[i, -1], kb.search_vector(texts[i], vectors[i], K, mode="dense"))
            for i in range(len(texts))
        )
    ]
    kb.close()
    return {"recall@10": round(float(np.mean(shares)), 4), "worst": round(min(shares), 1)}


def child(what: str, folder: Path, work: Path, count: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.scale", "--measure", what, "--folder", str(folder)]
    command += ["--work", str(work), "--queries", str(count)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# -- the whole -----------------------------------------------------------------------------------


def query_vectors(work: Path, embedder: Embedder | None, texts: list[str]) -> Vectors:
    """Made once and kept; `embedder` is needed for that."""
    file = work / f"queries-{len(texts)}.npy"
    if not file.exists():
        assert embedder is not None
        np.save(file, np.concatenate([embedder.queries([text]) for text in texts]))
    return np.asarray(np.load(file), np.float32)


def prepared(options: argparse.Namespace) -> tuple[Path, str, int]:
    """The knowledge base's folder, what its vectors are, and how many passages it holds."""
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    configuration = load()
    settings = configuration.section("kb", KbSettings)
    name = settings.embedder_identity
    folder = work / ("synthetic" if options.synthetic else "real")
    if not (folder / "count").exists():
        embedder = open_embedder(settings, configuration.home)
        query_vectors(work, embedder, questions(options.queries))
        file = options.vectors or work / "vectors.npy"
        kept = np.load(file) if options.synthetic else embed(passages(), embedder, file)
        there = int(kept.any(axis=1).sum())
        build(folder, name, stand_in(kept) if options.synthetic else kept)
        (folder / "count").write_text(f"{there} {len(kept)}")
    query_vectors(work, None, questions(options.queries))
    there, count = map(int, (folder / "count").read_text().split())
    return folder, "real" if there == count else f"synthetic, made of {there} real ones", count


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "scale")
    arguments.add_argument("--vectors", type=Path)
    arguments.add_argument("--synthetic", action="store_true")
    arguments.add_argument("--queries", type=int, default=500)
    arguments.add_argument("--measure", choices=["bare", "whole", "recall"], help=argparse.SUPPRESS)
    arguments.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    texts = questions(options.queries)
    if options.measure:
        vectors = query_vectors(options.work, None, texts)
        match options.measure:
            case "bare":
                found = measure_bare(options.folder, texts, vectors)
            case "whole":
                found = measure_whole(options.folder, texts)
            case _:
                found = recall(options.folder, texts, vectors)
        print(json.dumps(found))
        return
    folder, kind, count = prepared(options)
    result: dict[str, Any] = {"passages": count, "vectors": kind, "queries": len(texts)}
    result |= child("recall", folder, options.work, options.queries)
    result |= child("whole", folder, options.work, options.queries)
    changed = options.work / "changed"
    shutil.rmtree(changed, ignore_errors=True)
    shutil.copytree(folder, changed)
    result |= child("bare", changed, options.work, options.queries)
    shutil.rmtree(changed)
    rows = [{"what": name, "figure": value} for name, value in result.items()]
    show(rows, result, options.json)


if __name__ == "__main__":
    main()
