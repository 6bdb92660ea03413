"""The knowledge bases that are open for reading: opened when first asked for, closed when removed.

Blocking; call it in a thread. Knows who may see what only through the predicate it is handed.
"""

import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence

from kb.catalog import Catalog, Listed
from kb.embedders import Named
from kb.embedding import Embedder
from kb.errors import StoreBroken, StoreDown, UnknownKnowledgeBase
from kb.locks import WRITER
from kb.search import KnowledgeBase
from kb.settings import KbSettings

log = logging.getLogger(__name__)

Sees = Callable[[Listed], bool]
_GRACE = 60.0
"""Seconds that a removed knowledge base stays open for the answers that still read it."""
_SAME_TICK = 2_000_000_000
"""Nanoseconds; a folder changed this recently may change again under the same time stamp."""


def everyone(_: Listed) -> bool:
    return True


class KnowledgeBases:
    """All knowledge bases of a home, sharing one embedder; `others` gives those that older ones
    were made with. Thread-safe."""

    def __init__(
        self,
        catalog: Catalog,
        embedder: Embedder,
        settings: KbSettings,
        clock: Callable[[], float] = time.monotonic,
        others: Named | None = None,
    ) -> None:
        self.catalog = catalog
        self.embedder = embedder
        self._others = others
        self._settings = settings
        self._clock = clock
        self._lock = threading.RLock()
        self._listed: list[Listed] = []
        self._stamp = -1
        self._open: dict[str, KnowledgeBase] = {}
        self._leaving: list[tuple[float, KnowledgeBase]] = []
        self._said: set[str] = set()

    def listed(self, sees: Sees = everyone) -> list[Listed]:
        """What exists now, by name."""
        with self._lock:
            self._look()
            return [one for one in self._listed if sees(one)]

    def find(self, name_or_id: str, sees: Sees = everyone) -> Listed:
        """Raises UnknownKnowledgeBase, in the same words for what is missing and what is hidden."""
        for one in self.listed(sees):
            if name_or_id in (one.id, one.name):
                return one
        raise UnknownKnowledgeBase(f"there is no vector store {name_or_id!r}")

    def get(self, name_or_id: str, sees: Sees = everyone) -> KnowledgeBase:
        """Raises UnknownKnowledgeBase, StoreBroken."""
        return self._opened(self.find(name_or_id, sees))

    def all(self, sees: Sees = everyone) -> list[KnowledgeBase]:
        """Every one that can be opened. Raises StoreBroken or StoreDown only if none can: one that
        is broken does not keep the others from answering."""
        out: list[KnowledgeBase] = []
        broken: StoreBroken | StoreDown | None = None
        for one in self.listed(sees):
            try:
                out.append(self._opened(one))
            except (StoreBroken, StoreDown) as error:
                broken = error
                if one.id not in self._said:
                    log.error("%s; questions are answered without it", error)
                    self._said.add(one.id)
        if broken is not None and not out:
            raise broken
        return out

    def chosen(self, ids: Sequence[str] | None, sees: Sees = everyone) -> list[KnowledgeBase]:
        """Those that a request names, each once, or all."""
        if ids is None:
            return self.all(sees)
        return [
            self._opened(one)
            for one in {o.id: o for o in (self.find(i, sees) for i in ids)}.values()
        ]

    def close(self) -> None:
        with self._lock:
            for kb in [*self._open.values(), *(kb for _, kb in self._leaving)]:
                kb.close()
            self._open.clear()
            self._leaving.clear()

    def _opened(self, one: Listed) -> KnowledgeBase:
        # Opening reads every vector; the lock keeps two requests from doing it twice.
        with self._lock:
            kb = self._open.get(one.id)
            if kb is None:
                kb = KnowledgeBase(one.folder, self.embedder, self._settings, self._others)
                self._open[one.id] = kb
            return kb

    def _look(self) -> None:
        """Read the catalog again if a knowledge base came or went."""
        try:
            stamp = self.catalog.folder("").stat().st_mtime_ns
        except FileNotFoundError:
            stamp = 0
        if stamp == self._stamp:
            return
        self._listed = self.catalog.all()
        # A young stamp is not trusted: a second change in the same tick would not show in it. And
        # what could not be opened may be mended without a trace in the stamp.
        sure = time.time_ns() - stamp > _SAME_TICK and not any(one.problem for one in self._listed)
        self._stamp = stamp if sure else -1
        now = self._clock()
        alive = {one.id for one in self._listed}
        for gone in self._open.keys() - alive:
            self._leaving.append((now + _GRACE, self._open.pop(gone)))
        for _, kb in [late for late in self._leaving if late[0] <= now]:
            kb.close()
        self._leaving = [still for still in self._leaving if still[0] > now]


def is_followed(one: Listed) -> bool:
    """Whether ingest keeps this knowledge base true now: then it holds the writer's lock.

    The lock dies with its process, so it cannot be stale. A shared one is asked for, and given back
    at once: the most that ingest notices is to find it taken, and it tries again.
    """
    try:
        handle = os.open(one.folder / WRITER, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
