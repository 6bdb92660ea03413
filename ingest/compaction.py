"""When compaction is wanted, and its steps between other work. What it does is `kb.compact`."""

import logging
from collections.abc import Callable, Iterator

from ingest.settings import IngestSettings
from ingest.writer import Writer
from kb.compact import compaction, is_unfinished
from kb.errors import StoreDown

log = logging.getLogger(__name__)

_LOOK = 10.0
"""Seconds between looks at how much is dead."""
_AGAIN = 300.0
"""Seconds after which one that failed (a full disk) is tried again."""
_FEW = 1000
"""So few dead passages are not worth a compaction before their time."""
_STUBBORN = 20
"""After giving way so often, the one long step goes through with it."""


class Compactor:
    """For one thread. `clock` gives epoch seconds; `wanted` tells that other work has come."""

    def __init__(
        self,
        writer: Writer,
        settings: IngestSettings,
        clock: Callable[[], float],
        wanted: Callable[[], bool],
    ) -> None:
        self._writer = writer
        self._settings = settings
        self._clock = clock
        self._wanted = wanted
        self._steps: Iterator[None] | None = None
        self._look_at = 0.0
        self._gave_way = 0

    def step(self) -> bool:
        """Do one short step if compaction is due. Returns whether another may follow at once."""
        if self._steps is None and not self._begin():
            return False
        try:
            return self._next()
        except StoreDown as error:
            log.warning("compaction is put off: %s", error)
            self._steps, self._look_at = None, self._clock() + _AGAIN
            return False

    def _begin(self) -> bool:
        if self._clock() < self._look_at:
            return False
        self._look_at = self._clock() + _LOOK
        if not self._is_due():
            return False
        log.info("compaction begins")
        self._gave_way = 0
        writer = self._writer
        self._steps = compaction(writer.store, writer.lexical, self._clock, self._gives_way)
        return True

    def _next(self) -> bool:
        assert self._steps is not None
        ended = next(self._steps, self) is self
        if ended:
            self._steps = None
            log.info("compaction is done")
        self._writer.publish()
        return not ended

    def _is_due(self) -> bool:
        store = self._writer.store
        if is_unfinished(store):
            return True
        counts = store.counts()
        dead, alive = counts["dead_chunks"], counts["chunks"]
        if dead >= max(_FEW, self._settings.compact_share * (dead + alive)):
            return True
        last = float(store.meta("compacted_at") or store.meta("created_at") or 0)
        return dead > 0 and self._clock() - last >= self._settings.compact_seconds

    def _gives_way(self) -> bool:
        if not self._wanted() or self._gave_way >= _STUBBORN:
            return False
        self._gave_way += 1
        return True
