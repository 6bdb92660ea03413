"""When a large knowledge base is divided into cells, step by step. What that is: `kb.partition`."""

import logging
from collections.abc import Callable, Iterator

from ingest.writer import Writer
from kb.errors import StoreDown
from kb.partition import is_due, partition

log = logging.getLogger(__name__)

_LOOK = 10.0
"""Seconds between looks at how much has come."""
_AGAIN = 300.0
"""Seconds after which one that failed (a full disk) is tried again."""


class Partitioner:
    """For one thread. Up to `exact` passages need no cells; `clock` gives epoch seconds. Goes on
    beside a bulk load, which is what makes it due."""

    def __init__(self, writer: Writer, exact: int, clock: Callable[[], float]) -> None:
        self._writer = writer
        self._exact = exact
        self._clock = clock
        self._steps: Iterator[None] | None = None
        self._look_at = 0.0

    def step(self) -> bool:
        """Do one short step if cells are due. Returns whether another may follow at once."""
        if self._steps is None and not self._begin():
            return False
        try:
            return self._next()
        except StoreDown as error:
            log.warning("dividing into cells is put off: %s", error)
            self._steps, self._look_at = None, self._clock() + _AGAIN
            return False

    def _begin(self) -> bool:
        if self._clock() < self._look_at:
            return False
        self._look_at = self._clock() + _LOOK
        if not is_due(self._writer.store, self._exact):
            return False
        log.info("dividing into cells begins")
        self._steps = partition(self._writer.store, self._exact)
        return True

    def _next(self) -> bool:
        assert self._steps is not None
        if next(self._steps, self) is not self:
            return True
        self._steps = None
        log.info("dividing into cells is done")
        self._writer.publish()  # readers look at what is new with a new generation
        return False
