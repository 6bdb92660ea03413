"""When a knowledge base is made anew, and its steps between other work. How is `kb.remake`."""

import logging
from collections.abc import Callable, Sequence
from typing import NoReturn

from ingest.settings import IngestSettings
from ingest.writer import Writer
from kb.embedders import Named
from kb.embedding import Embedder
from kb.errors import EmbedderDown, ModelBroken, ModelNotFound, Transient
from kb.rebuild import REQUEST, renew
from kb.remake import Remake, forget, made, note, progress, wanted
from kb.settings import KbSettings
from kb.store import Store

log = logging.getLogger(__name__)

_AGAIN = 60.0
"""Seconds after which one that failed (a full disk, an embedder that is away) goes on."""
_SAY = 30.0
"""Seconds between two lines about how far it is."""
_SMALLEST_SLICE = 16
_LARGEST_SLICE = 1024


class Remaker:
    """For one thread. `clock` gives epoch seconds. Once it `is_done`, the knowledge base has other
    passages and indexes, and must be opened again."""

    def __init__(
        self,
        writer: Writer,
        embedder: Embedder,
        kb_settings: KbSettings,
        settings: IngestSettings,
        clock: Callable[[], float],
    ) -> None:
        self.is_done = False
        self._store = writer.store
        self._request = writer.store.file.with_name(REQUEST)
        self._embedder = embedder
        self._today = wanted(embedder.name, kb_settings)
        self._settings = settings
        self._clock = clock
        self._slice = _SMALLEST_SLICE
        self._remake: Remake | None = None
        self._go_on_at = 0.0
        self._say_at = 0.0
        self._is_other = made(self._store, self._today) != self._today
        if not self._is_other:
            forget(self._store)
            if self._store.meta("chunk_tokens") is None:
                note(self._store, self._today)

    def step(self) -> bool:
        """Do one short step if one is wanted. Returns whether another may follow at once."""
        if self.is_done or self._clock() < self._go_on_at:
            return False
        try:
            if self._is_other:
                self._go_on()
            elif self._request.exists():
                renew(self._store)
                self._end("the indexes are new")
            else:
                return False
        except Transient as error:
            log.warning("making it anew is put off: %s", error)
            self._go_on_at = self._clock() + _AGAIN
            self.close()
            return False
        return True

    def close(self) -> None:
        if self._remake is not None:
            self._remake.close()
            self._remake = None

    def _go_on(self) -> None:
        if self._remake is None:
            self._remake = Remake(self._store, self._today, self._embedder)
        self._say()
        started = self._clock()
        more = self._remake.step(self._slice)
        seconds = self._clock() - started
        if seconds > self._settings.turn_seconds:
            self._slice = max(_SMALLEST_SLICE, self._slice // 2)
        elif seconds < self._settings.turn_seconds / 4:
            self._slice = min(_LARGEST_SLICE, self._slice * 2)
        if not more:
            self._remake.finish()
            self._end(f"it is made anew with {self._today.embedder}")

    def _say(self) -> None:
        if self._clock() < self._say_at:
            return
        self._say_at = self._clock() + _SAY
        if how_far := progress(self._store):
            log.info(
                "making it anew with %s, beside the old: %d of %d documents",
                self._today.embedder,
                how_far["documents_done"],
                how_far["documents"],
            )

    def _end(self, message: str) -> None:
        self._request.unlink(missing_ok=True)
        self.is_done = True
        log.info("%s; generation %d", message, self._store.generation())


def embedder_of(store: Store, embedder: Embedder, others: Named | None) -> Embedder:
    """What gives vectors to a knowledge base's files as it is now: today's embedder, or the one
    that it was made with, until it is made anew."""
    name = store.meta("embedder") or ""
    if name == embedder.name:
        return embedder
    try:
        if others is None:
            raise ModelNotFound(f"the embedder {name} is not here")
        return others(name)
    except (ModelNotFound, ModelBroken, EmbedderDown) as error:
        log.warning("%s; its files wait until it is made anew with %s", error, embedder.name)
        return _Gone(name, str(error))


class _Gone:
    """An embedder that gives no vectors, so that nobody else's take their place."""

    dimensions = 0
    languages = None

    def __init__(self, name: str, why: str) -> None:
        self.name = name
        self._why = why

    def passages(self, texts: Sequence[str]) -> NoReturn:
        raise EmbedderDown(self._why)

    queries = passages
