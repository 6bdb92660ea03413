"""How near ingest comes to the bare model: the same passages, in the same process, in turn.

    python -m bench.ingest_rate [--json] [--files 120] [--rounds 3] [--folder DIR]

Files of all lengths are taken in as `ingest sweep` does it (read, parsed, cut, embedded, stored,
indexed); the passages that this made are then given to `SentenceTransformer.encode` in one call,
which sorts them by length itself. The ratios are of wall time and of processor time (of this
process and its children); where other jobs run, the second one says more.
`--folder` takes files of a folder (its first ones, by name) in place of generated ones.
"""

import random
import resource
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from bench.freshness import SENTENCE
from bench.server import parser, show
from ingest.settings import IngestSettings
from ingest.worker import Worker
from kb.catalog import DEFAULT, Catalog
from kb.embedding import Embedder, LocalEmbedder, open_embedder
from kb.layout import DATABASE
from kb.settings import KbSettings, load
from kb.store import Store, to_embed


def write(folder: Path, files: int) -> None:
    """Generated files: notes of a sentence, pages, and a few long ones."""
    rng = random.Random(0)
    for n in range(files):
        sentences = rng.choice([1, 2, 4, 8, 15, 30, 30, 60])
        text = "".join(
            SENTENCE.format(word=f"w{n}x{i}", n=i, m=i * 3, h=8 + i % 10) for i in range(sentences)
        )
        (folder / f"{n}.txt").write_text(text, encoding="utf-8")


def copy(source: Path, folder: Path, files: int) -> None:
    found = sorted(path for path in source.rglob("*") if path.is_file())
    for n, path in enumerate(found[:files]):
        shutil.copy(path, folder / f"{n}{path.suffix}")


Seconds = tuple[float, float]
"""Of wall time and of processor time."""


def now() -> Seconds:
    """Processor time includes that of children which have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.perf_counter(), sum(one.ru_utime + one.ru_stime for one in used)


def since(begun: Seconds) -> Seconds:
    wall, processor = now()
    return wall - begun[0], processor - begun[1]


def ingest(home: Path, docs: Path, embedder: Embedder, kb: KbSettings) -> tuple[Seconds, list[str]]:
    """Seconds from an empty knowledge base to all files found, and the passages as embedded."""
    catalog = Catalog(home)
    one = catalog.add(DEFAULT, embedder.name, int(time.time()), watch=docs)
    uploads = catalog.uploads(one.name)
    worker = Worker(one, uploads, embedder, kb, IngestSettings(), threading.Event())
    begun = now()
    worker.complete()
    seconds = since(begun)
    store = Store(one.folder / DATABASE, readonly=True)
    try:
        rows = store.rows(
            "SELECT d.title, c.heading, c.text FROM chunks c JOIN documents d"
            " ON d.id = c.document_id WHERE c.dead_seq IS NULL ORDER BY c.id"
        )
        return seconds, [to_embed(r["title"], r["heading"], r["text"]) for r in rows]
    finally:
        store.close()


def bare(embedder: LocalEmbedder, texts: Sequence[str]) -> Seconds:
    """Seconds of one call of the bare model."""
    prompt = "passage" if "passage" in embedder.model.prompts else None
    begun = now()
    embedder.model.encode(list(texts), prompt_name=prompt, show_progress_bar=False)
    return since(begun)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--files", type=int, default=120)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--folder", type=Path, help="take its files")
    options = arguments.parse_args()
    configuration = load()
    settings = configuration.section("kb", KbSettings)
    embedder = open_embedder(settings, configuration.home)
    if not isinstance(embedder, LocalEmbedder):
        arguments.error("there is no bare model to compare a remote or a fake embedder with")
    rows = []
    with tempfile.TemporaryDirectory(prefix="vademecum-bench-") as folder:
        docs = Path(folder) / "docs"
        docs.mkdir()
        if options.folder:
            copy(options.folder, docs, options.files)
        else:
            write(docs, options.files)
        embedder.passages(["the first call allocates"])
        for n in range(options.rounds):
            seconds, texts = ingest(Path(folder) / f"home{n}", docs, embedder, settings)
            raw = bare(embedder, texts)
            rows.append(
                {
                    "round": n + 1,
                    "passages": len(texts),
                    "ingest /s": round(len(texts) / seconds[0], 1),
                    "bare model /s": round(len(texts) / raw[0], 1),
                    "ratio": round(raw[0] / seconds[0], 3),
                    "processor ratio": round(raw[1] / seconds[1], 3),
                }
            )
    ratios = {
        name: statistics.median(float(row[name]) for row in rows)
        for name in ("ratio", "processor ratio")
    }
    show(rows, {"rounds": rows, **ratios, "files": options.files}, options.json)


if __name__ == "__main__":
    main()
