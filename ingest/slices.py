"""Which passages are embedded in the next call, and how many: enough for about one turn's time.

Passages of files that came alone go first, newest first. Those of a bulk load are sorted by length
across its files, so that little of a call is padding. Knows no embedder and no file on disk.
"""

from collections.abc import Iterable, Sequence
from itertools import chain

from ingest.pipeline import Draft, Passage

_LEAST = 4
_MOST = 1024
_CALM = 3
"""How many times longer a load's calls are while no fresh file comes."""
_OVERHEAD = 8
"""What a passage costs beside its tokens."""


class Slices:
    """`seconds` is how long a call should take. How quick the embedder is, it learns."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._per_second = 0.0
        self._pool: list[Passage] = []
        self._pooled: set[Draft] = set()

    def next(self, drafts: Sequence[Draft], *, calm: bool = False) -> list[Passage]:
        """Passages that have no vector yet, of these drafts; empty when none is left. While it is
        `calm`, a load's calls are longer: larger ones are more efficient."""
        alone = sorted((d for d in drafts if not d.file.bulk), key=lambda d: -d.file.changed_at)
        missing = chain.from_iterable(map(_missing, alone))
        return self._take(missing, 1) or self._of_bulk(drafts, _CALM if calm else 1)

    def is_gathering(self, draft: Draft) -> bool:
        """Whether a draft of a bulk load waits for the load's next pool."""
        return draft not in self._pooled

    @property
    def is_between(self) -> bool:
        """Whether the pool of the bulk load is used up."""
        return not self._pool

    def took(self, passages: Sequence[Passage], seconds: float) -> None:
        """How long the call with these took."""
        speed = _cost(passages) / max(seconds, 1e-6)
        self._per_second = (self._per_second + speed) / 2 if self._per_second else speed

    def _of_bulk(self, drafts: Sequence[Draft], times: int) -> list[Passage]:
        """From a pool that is used up before the next one begins: a file's short passages would
        otherwise wait for all longer ones that are still to come."""
        living = set(drafts)
        self._pool = [passage for passage in self._pool if passage.draft in living]
        if not self._pool:
            self._pooled = {draft for draft in drafts if draft.file.bulk}
            passages = chain.from_iterable(map(_missing, self._pooled))
            self._pool = sorted(passages, key=lambda passage: passage.cost)
        taken = self._take(reversed(self._pool), times)
        del self._pool[len(self._pool) - len(taken) :]
        return taken

    def _take(self, passages: Iterable[Passage], times: int) -> list[Passage]:
        room = self._per_second * self._seconds * times
        out: list[Passage] = []
        longest = 0
        for passage in passages:
            longest = max(longest, passage.cost)
            # In one call, every passage costs what the longest does.
            full = (len(out) + 1) * (longest + _OVERHEAD) > room
            if len(out) >= _MOST or (full and len(out) >= _LEAST * times):
                break
            out.append(passage)
        return out


def _missing(draft: Draft) -> list[Passage]:
    return [p for p in draft.passages if draft.vectors[p.index] is None]


def _cost(passages: Sequence[Passage]) -> float:
    return len(passages) * (max(p.cost for p in passages) + _OVERHEAD)
