"""Which changes came alone, and which with many others: the two lanes. Pure."""

from collections import Counter

MANY = 20
"""More than so many changes of one kind and place within `_SECONDS` are a bulk load."""
_SECONDS = 2.0


class Bursts:
    """Counts the different files that changed in the last moments, kind by kind."""

    def __init__(self) -> None:
        self._recent: dict[tuple[str, str], float] = {}  # in the order of their times
        self._counts: Counter[str] = Counter()

    def is_one_of_many(self, kind: str, path: str, at: float) -> bool:
        """A change of `path` at that time (seconds). Whether its kind comes in bulk now."""
        for old, seen in list(self._recent.items()):
            if seen > at - _SECONDS:
                break
            self._forget(old)
        if (kind, path) in self._recent:
            self._forget((kind, path))
        self._recent[kind, path] = at
        self._counts[kind] += 1
        return self._counts[kind] > MANY

    def _forget(self, change: tuple[str, str]) -> None:
        del self._recent[change]
        self._counts[change[0]] -= 1
        if not self._counts[change[0]]:
            del self._counts[change[0]]
