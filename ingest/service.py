"""Every knowledge base of a home is followed by a worker thread of its own, while it exists.

Knows which knowledge bases there are (the catalog) and nothing of files. A knowledge base that
cannot be followed is said so, and does not keep the others waiting.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from ingest.settings import IngestSettings
from ingest.worker import Worker
from kb.catalog import Catalog, Listed
from kb.embedders import Named
from kb.embedding import Embedder
from kb.errors import StoreBroken, VademecumError, WriterBusy
from kb.settings import KbSettings

log = logging.getLogger(__name__)

_POLL = 1.0
_AGAIN = 5.0
"""Seconds until a worker that ended unexpectedly is started again."""


@dataclass(slots=True)
class _Followed:
    worker: Worker
    thread: threading.Thread
    again_at: float = 0.0
    said: str = ""


class Service:
    """`run` until `stop` is set. One embedder is shared; `others` gives those that older knowledge
    bases were made with. `clock` gives seconds of any origin."""

    def __init__(
        self,
        catalog: Catalog,
        embedder: Embedder,
        kb_settings: KbSettings,
        settings: IngestSettings,
        stop: threading.Event,
        clock: Callable[[], float] = time.monotonic,
        others: Named | None = None,
    ) -> None:
        self._catalog = catalog
        self._embedder = embedder
        self._others = others
        self._kb_settings = kb_settings
        self._settings = settings
        self._stop = stop
        self._clock = clock
        self._followed: dict[str, _Followed] = {}

    def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """`on_ready` is called when every knowledge base is watched, or known not to be."""
        ready = False
        try:
            while not self._stop.is_set():
                self._follow()
                if not ready and self._is_settled():
                    ready = True
                    on_ready()
                self._stop.wait(_POLL if ready else 0.02)
        finally:
            for one in self._followed.values():
                one.worker.stop()
            for one in self._followed.values():
                one.thread.join()

    def _follow(self) -> None:
        """Stop what was removed; start what is new or shall be tried again. In this order: another
        may have the name of one that was removed."""
        present = {listed.id: listed for listed in self._catalog.all()}
        for kb_id in [i for i in self._followed if i not in present]:
            gone = self._followed.pop(kb_id)
            gone.worker.stop()
            gone.thread.join()
            log.info("knowledge base %s was removed", gone.worker.listed.name)
        for kb_id, listed in present.items():
            one = self._followed.get(kb_id)
            if one is None:
                self._start(listed, "")
            elif not one.thread.is_alive() and self._clock() >= one.again_at:
                self._start(listed, one.said)

    def _start(self, listed: Listed, said: str) -> None:
        worker = Worker(
            listed,
            self._catalog.uploads(listed.name),
            self._embedder,
            self._kb_settings,
            self._settings,
            threading.Event(),
            others=self._others,
        )
        thread = threading.Thread(target=self._work, args=(worker,), name=f"ingest-{listed.name}")
        self._followed[listed.id] = _Followed(worker, thread, said=said)
        thread.start()

    def _work(self, worker: Worker) -> None:
        one = self._followed[worker.listed.id]
        try:
            worker.run()
        except WriterBusy as error:
            self._refuse(one, str(error), again=_POLL)
        except StoreBroken as error:
            self._refuse(one, str(error), again=float("inf"))
        except VademecumError as error:
            self._refuse(one, str(error), again=_AGAIN)
        except Exception:
            if not self._is_removed(one):
                log.exception("the worker of %s ended; it starts again", worker.listed.name)
            one.again_at = self._clock() + _AGAIN

    def _refuse(self, one: _Followed, message: str, *, again: float) -> None:
        if message != one.said and not self._is_removed(one):
            log.error("%s", message)
        one.said = message
        one.again_at = self._clock() + again

    def _is_removed(self, one: _Followed) -> bool:
        """Whether that is why it failed; the next look at the catalog says so."""
        return one.worker.listed.id not in {listed.id for listed in self._catalog.all()}

    def _is_settled(self) -> bool:
        return all(
            one.worker.watching.is_set() or not one.thread.is_alive()
            for one in self._followed.values()
        )
