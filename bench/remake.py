"""What it costs to make a knowledge base's indexes or passages anew, and to compact it.

    python -m bench.remake [--json] [--passages 50000]

Each is done by a process of its own, as `vademecum kb rebuild` and `kb compact` do it, while this
one searches without pause as a server would. Vectors are a stand-in's, which takes no time: what is
measured is everything but the embedding. Before compaction a third of the documents is deleted.
"""

import argparse
import random
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.server import parser, percentiles, show
from ingest.writer import open_writer
from kb.catalog import Catalog, Listed
from kb.chunking import chunk
from kb.compact import compact
from kb.embedders import Embedders
from kb.records import Parsed
from kb.remake import wanted
from kb.renewal import rebuild
from kb.search import KnowledgeBase
from kb.settings import KbSettings
from kb.store import to_embed

NAME = "remake"
FIRST = KbSettings(embedder="fake:384")
OTHER = KbSettings(embedder="fake:256")
"""Vectors of another length."""
_WORDS = [f"word{n}" for n in range(20_000)]
_PARAGRAPHS = 60
"""Of a document; each is about a passage."""
_IDLE = 200
"""Searches while nothing else is done."""


def text(rng: random.Random) -> str:
    return "\n\n".join(" ".join(rng.choices(_WORDS, k=80)) + "." for _ in range(_PARAGRAPHS))


def build(home: Path, passages: int) -> int:
    """A knowledge base of at least so many passages, as ingest writes it. Returns how many."""
    embedder = Embedders(FIRST, home).today()
    one = Catalog(home).add(NAME, embedder.name, 0)
    rng, count = random.Random(0), 0
    with open_writer(one, time.time) as writer:
        while count < passages:
            said = text(rng)
            pieces = chunk(said, FIRST.chunk_tokens)
            vectors = embedder.passages([to_embed("", p.heading, p.text) for p in pieces])
            file = writer.ledger.changed("bench", f"{count}.txt")
            writer.store.put_document(file.id, str(count), Parsed(said), pieces, vectors)
            writer.ledger.completed(file, size=len(said), mtime_ns=1)
            writer.publish()
            count += len(pieces)
    return count


def delete(one: Listed) -> None:
    """Every third document."""
    with open_writer(one, time.time) as writer:
        for file in writer.ledger.all()[::3]:
            writer.ledger.forget(file)
        writer.publish()


def works(home: Path) -> dict[str, Callable[[], object]]:
    one = Catalog(home).get(NAME)

    def made_with(settings: KbSettings) -> int:
        embedders = Embedders(settings, home)
        return rebuild(one, wanted(embedders.today().name, settings), embedders)

    return {
        "indexes anew": lambda: made_with(FIRST),
        "passages anew, another embedder": lambda: made_with(OTHER),
        "compaction": lambda: compact(one, time.time),
    }


def work(home: Path, what: str) -> None:
    """In a process of its own: says when it begins, and then how long it took."""
    job = works(home)[what]
    print("begins", flush=True)
    begun = time.perf_counter()
    job()
    print(round(time.perf_counter() - begun, 2), flush=True)


def searches(kb: KnowledgeBase, goes_on: Callable[[int], bool]) -> dict[str, Any]:
    """One search after another while `goes_on`, given how many there were; one at least."""
    rng = random.Random(1)
    seconds: list[float] = []
    while not seconds or goes_on(len(seconds)):
        question = " ".join(rng.choices(_WORDS, k=8))
        begun = time.perf_counter()
        kb.search(question, 10)
        seconds.append(time.perf_counter() - begun)
    return {
        "searches": len(seconds),
        "search p50 ms": percentiles(seconds)["p50"],
        "search p95 ms": percentiles(seconds)["p95"],
        "slowest ms": round(1e3 * max(seconds), 1),
    }


def measure(kb: KnowledgeBase, home: Path, what: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.remake", "--work", what, "--home", str(home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        told = child.stdout
        assert told is not None
        told.readline()
        meanwhile = searches(kb, lambda _: not select.select([told], [], [], 0)[0])
        took = told.read()
    if child.returncode:
        raise SystemExit(f"{what} ended with {child.returncode}")
    return {"what": what, "seconds": float(took), **meanwhile}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--passages", type=int, default=50_000)
    arguments.add_argument("--work", help=argparse.SUPPRESS)
    arguments.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.work:
        work(options.home, options.work)
        return
    with tempfile.TemporaryDirectory(prefix="vademecum-bench-") as folder:
        home = Path(folder)
        count = build(home, options.passages)
        one = Catalog(home).get(NAME)
        embedders = Embedders(FIRST, home)
        kb = KnowledgeBase(one.folder, embedders.today(), FIRST, embedders)
        searches(kb, lambda n: n < 20)  # the first ones load code
        rows = [{"what": "nothing", "seconds": 0.0, **searches(kb, lambda n: n < _IDLE)}]
        for what in works(home):
            if what == "compaction":
                delete(one)
                kb.catch_up()
            rows.append(measure(kb, home, what))
        kb.close()
    show(rows, {"rows": rows, "passages": count}, options.json)


if __name__ == "__main__":
    main()
