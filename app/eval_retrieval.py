"""`vademecum eval retrieval`: how well and how quickly each mode finds what it should.

Every query runs through `kb.search` in all three modes, its vector computed once. Knows nothing of
how passages got into the knowledge base (`kb.collection_kb`) nor of the command line.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from app.ranking import fold, ndcg, percentile, recall
from app.raw_speed import speeds
from kb.collection import Collection, Query
from kb.embedding import Embedder
from kb.search import KnowledgeBase, Mode
from kb.settings import KbSettings

MODES: tuple[Mode, ...] = get_args(Mode)
CHUNKS = 30
"""Chunks asked for, so that ten documents are left when a document's chunks are folded into one."""


@dataclass(slots=True)
class Tally:
    """What one mode has shown so far."""

    ndcg: list[float] = field(default_factory=list)
    recall: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def report(self) -> dict[str, Any]:
        return {
            "ndcg@10": round(sum(self.ndcg) / len(self.ndcg), 4),
            "recall@10": round(sum(self.recall) / len(self.recall), 4),
            "search_ms": {
                f"p{share}": round(1000 * percentile(self.seconds, share / 100), 2)
                for share in (50, 95, 99)
            },
        }


def evaluate(
    collection: Collection,
    folder: Path,
    embedder: Embedder,
    settings: KbSettings,
    limit: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """The report, as interface.md describes it. `limit` takes a random sample of the queries."""
    queries = list(collection.queries)
    if limit is not None and limit < len(queries):
        queries = random.Random(0).sample(queries, limit)
    began = clock()
    kb = KnowledgeBase(folder, embedder, settings)
    open_seconds = clock() - began
    try:
        # The first searches load code and pages of the index; no question is asked only once.
        kb.search(queries[0].text)
        tallies = {mode: Tally() for mode in MODES}
        embedding = [_ask(kb, embedder, query, tallies, clock) for query in queries]
        return {
            "modes": {mode: tally.report() for mode, tally in tallies.items()},
            "queries": len(queries),
            "passages": len(collection.passages),
            "chunks": kb.store.counts()["chunks"],
            "embed_query_ms": round(1000 * percentile(embedding, 0.5), 2),
            **speeds(kb.store),
            "open_s": round(open_seconds, 2),
            "rss_mb": resident_mb(),
            "embedder": embedder.name,
        }
    finally:
        kb.close()


def _ask(
    kb: KnowledgeBase,
    embedder: Embedder,
    query: Query,
    tallies: dict[Mode, Tally],
    clock: Callable[[], float],
) -> float:
    """One query in every mode. Returns the seconds that its embedding took."""
    began = clock()
    vector = embedder.queries([query.text])[0]
    embedding = clock() - began
    for mode, tally in tallies.items():
        began = clock()
        found = kb.search_vector(query.text, vector, CHUNKS, mode=mode)
        tally.seconds.append(clock() - began)
        ranked = fold(hit.filename for hit in found.hits)
        tally.ndcg.append(ndcg(ranked, query.relevance))
        tally.recall.append(recall(ranked, query.relevance))
    return embedding


def resident_mb() -> int:
    """Memory of this process, in MB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) // 1024
    return 0


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = [
        f"{'mode':8} {'nDCG@10':>8} {'recall@10':>10} {'p50 ms':>8} {'p95 ms':>8} {'p99 ms':>8}"
    ]
    for mode, r in report["modes"].items():
        ms = r["search_ms"]
        lines.append(
            f"{mode:8} {r['ndcg@10']:8.4f} {r['recall@10']:10.4f}"
            f" {ms['p50']:8.1f} {ms['p95']:8.1f} {ms['p99']:8.1f}"
        )
    lines.append(
        f"{report['queries']} queries, {report['passages']} passages; query embedding"
        f" {report['embed_query_ms']} ms; open {report['open_s']} s; {report['rss_mb']} MB; ingest"
        f" {report['ingest_passages_per_s']} passages/s (bare model"
        f" {report['raw_encode_passages_per_s']})"
    )
    return "\n".join(lines)
