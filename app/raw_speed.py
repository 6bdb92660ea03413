"""How fast a collection was embedded, beside the bare model on a sample of it, in one process."""

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kb.collection import Passage
from kb.embedding import Embedder, LocalEmbedder
from kb.layout import DATABASE
from kb.store import Store

SAMPLE = 256
"""Passages that are also encoded by the bare model, to compare speeds."""


def measure(
    folder: Path,
    passages: Sequence[Passage],
    embedder: Embedder,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Keep the bare model's speed in the knowledge base's `meta`, once: what ingest can at best
    reach. Nothing for a remote or a fake embedder."""
    store = Store(folder / DATABASE)
    try:
        if not isinstance(embedder, LocalEmbedder) or store.meta("raw_seconds"):
            return
        encode = embedder.model.encode
        sample = random.Random(0).sample(list(passages), min(SAMPLE, len(passages)))
        texts = [f"{p.title}\n{p.text}" for p in sample]
        encode(texts[:8], show_progress_bar=False)  # the first call allocates
        began = clock()
        encode(texts, show_progress_bar=False)
        with store.transaction():
            store.set_meta("raw_seconds", str(clock() - began))
            store.set_meta("raw_count", str(len(texts)))
    finally:
        store.close()


def speeds(store: Store) -> dict[str, float | None]:
    """Passages a second, of the run that embedded them."""

    def rate(name: str) -> float | None:
        seconds = float(store.meta(f"{name}_seconds") or 0)
        count = float(store.meta(f"{name}_count") or 0)
        return round(count / seconds, 1) if seconds else None

    return {"ingest_passages_per_s": rate("ingest"), "raw_encode_passages_per_s": rate("raw")}
