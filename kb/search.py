"""KnowledgeBase: what a reader does with a question. Catch up, retrieve, fuse, keep the living.

The indexes are at the store's generation first (`kb.following`). Candidates that are dead in SQLite
are dropped last, so that a deleted or replaced passage cannot be returned, whatever an index still
holds. Knows nothing of prompts.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from kb.embedders import Named
from kb.embedding import Embedder
from kb.errors import NotYet
from kb.following import Following
from kb.fusion import fuse
from kb.layout import DATABASE
from kb.ledger import Ledger
from kb.records import Found, Hit, shown_name
from kb.settings import KbSettings
from kb.store import Row, Store, chunk_of, context
from kb.words import content_words, is_chinese, words

Mode = Literal["hybrid", "dense", "lexical"]
_DIGITS = 4
"""Of a score that count: copies of one text, embedded beside others, differ in the fifth. The one
that was taken in first stands first, whatever the mode."""
_TRIES = 3  # searches of one question while a writer keeps committing


class KnowledgeBase:
    """One knowledge base, opened for reading. Thread-safe.

    It may be made anew with another embedder while it is open; `others` then gives that one.
    """

    def __init__(
        self,
        folder: Path,
        embedder: Embedder,
        settings: KbSettings,
        others: Named | None = None,
    ) -> None:
        self.store = Store(folder / DATABASE, readonly=True)
        self.ledger = Ledger(self.store)
        self.id = self.store.meta("id") or ""
        self.name = folder.name
        self._settings = settings
        self.following = Following(self.store, embedder, others)
        self._words = ThreadPoolExecutor(1, "words")
        self.catch_up()

    def close(self) -> None:
        self._words.shutdown()
        self.store.close()

    def catch_up(self, at_least: int = 0) -> int:
        """See every commit up to now, and at least this generation; returns the one reached.

        Waits up to two seconds; raises NotYet after that.
        """
        return self.following.catch_up(at_least)

    def search(
        self, question: str, k: int = 8, *, min_generation: int = 0, mode: Mode = "hybrid"
    ) -> Found:
        """The `k` best living passages for a question."""
        found = None
        while found is None:
            embedder = self.following.embedder
            vector = embedder.queries([question])[0]
            found = self._settled(question, vector, embedder, k, min_generation, mode)
        return found

    def search_vector(
        self,
        question: str,
        vector: npt.NDArray[np.float32],
        k: int,
        *,
        min_generation: int = 0,
        mode: Mode = "hybrid",
    ) -> Found:
        """`search` with the question's vector, shape (dimensions,), already at hand.

        Raises NotYet if the knowledge base was made anew with another embedder just now.
        """
        found = self._settled(question, vector, self.following.embedder, k, min_generation, mode)
        if found is None:
            raise NotYet(f"knowledge base {self.name} has another embedder now: ask again")
        return found

    def _settled(
        self,
        question: str,
        vector: npt.NDArray[np.float32],
        embedder: Embedder,
        k: int,
        min_generation: int,
        mode: Mode,
    ) -> Found | None:
        """None if `embedder`, which made the vector, is no longer the knowledge base's."""
        for _ in range(_TRIES):
            found = self._once(question, vector, embedder, k, min_generation, mode)
            # A commit meanwhile may have retired a passage whose successor was not looked at.
            if found is None or self.store.generation() == found.generation:
                break
        return found

    def _once(
        self,
        question: str,
        vector: npt.NDArray[np.float32],
        embedder: Embedder,
        k: int,
        min_generation: int,
        mode: Mode,
    ) -> Found | None:
        generation = self.catch_up(min_generation)
        n = max(k, self._settings.candidates)
        # A question of nothing but common words ("The Who") still means them.
        asked = content_words(question) or list(dict.fromkeys(words(question)))
        at = self.following
        with at.lock:
            if embedder is not at.embedder:
                return None
            beside = at.beside(vector, chinese=is_chinese(question))
            # Both compute outside Python's lock, so the words are looked for meanwhile.
            heard = self._words.submit(at.lexical.search, asked if mode != "dense" else (), n)
            dense = beside.nearest(n) if mode != "lexical" else {}
            lexical = dict(heard.result())
            cosines = dense | beside.of([i for i in lexical if i not in dense])
            rarity = at.lexical.rarity(asked)
        if mode == "hybrid":
            weight = self._settings.dense_weight
            scores = fuse(cosines, lexical, rarity, weight, beside.apart)
        else:
            scores = cosines if mode == "dense" else lexical
        scores = {i: round(score, _DIGITS) for i, score in scores.items()}
        ranked = sorted(scores, key=lambda i: (-scores[i], i))
        alive = self._alive(ranked, k)
        hits = tuple(
            _hit(row, scores[i], cosines.get(i, 0.0), lexical.get(i, 0.0), rarity)
            for i, row in alive
        )
        keywords = tuple(sorted(rarity, key=lambda word: -rarity[word]))
        apart = [i for i in ranked if i in beside.apart]
        near = [i for i in ranked if i not in beside.apart] if apart else ranked
        backgrounds = _background(near, cosines), _background(apart, cosines)
        return Found(hits, generation, keywords, *backgrounds)

    def _alive(self, ranked: Sequence[int], k: int) -> list[tuple[int, Row]]:
        """The first `k` of the ranked chunks that are alive, asking SQLite for a few at a time."""
        out: list[tuple[int, Row]] = []
        step = max(2 * k, 1)
        for start in range(0, len(ranked), step):
            part = ranked[start : start + step]
            rows = self.store.live(part)
            out.extend((i, rows[i]) for i in part if i in rows)
            if len(out) >= k:
                break
        return out[:k]


def merge(founds: Sequence[Found], k: int) -> Found:
    """The best `k` hits of several knowledge bases. Fused scores are relative to a knowledge
    base's own best, so the hits are compared by cosine and by how well their words match."""
    if len(founds) == 1:
        return founds[0]
    hits = sorted((h for f in founds for h in f.hits), key=lambda h: -(h.cosine + 0.1 * h.coverage))
    keywords = dict.fromkeys(word for f in founds for word in f.keywords)
    return Found(
        tuple(hits[:k]),
        max((f.generation for f in founds), default=0),
        tuple(keywords),
        max((f.background for f in founds if f.background is not None), default=None),
        max((f.apart for f in founds if f.apart is not None), default=None),
    )


def _background(ranked: Sequence[int], cosines: dict[int, float]) -> float | None:
    far = [cosines[i] for i in ranked[20:40] if i in cosines]
    return sum(far) / len(far) if len(far) == 20 else None


def _hit(row: Row, score: float, cosine: float, lexical: float, rarity: dict[str, float]) -> Hit:
    held = set(words(f"{context(row['title'], row['heading'])} {row['text']}"))
    total = sum(rarity.values())
    covered = sum(weight for word, weight in rarity.items() if word in held)
    return Hit(
        chunk=chunk_of(row),
        file_id=row["file_id"],
        filename=shown_name(row["path"]),
        title=row["title"],
        document_sha256=row["sha256"],
        score=score,
        cosine=cosine,
        lexical=lexical,
        coverage=covered / total if total else 0.0,
        pages=tuple(json.loads(row["pages"])),
    )
