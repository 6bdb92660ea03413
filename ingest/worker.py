"""One knowledge base kept true to its folders: events and sweeps in, turns of work out.

Knows no other knowledge base and no process. Whoever starts it handles what it raises.
"""

import logging
import os
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ingest.ahead import Ahead
from ingest.compaction import Compactor
from ingest.doubts import doubt
from ingest.events import FileEvent
from ingest.intake import Intake
from ingest.limits import Limits
from ingest.pipeline import Pipeline
from ingest.presence import Presence
from ingest.remaking import Remaker, embedder_of
from ingest.settings import IngestSettings
from ingest.sweep import Sweeper
from ingest.turns import Turns
from ingest.watch import Watcher
from ingest.writer import Writer, open_writer
from kb.catalog import Listed
from kb.embedders import Named
from kb.embedding import Embedder
from kb.settings import KbSettings

log = logging.getLogger(__name__)

_TICK = 1.0
"""Seconds after which a worker looks around even if nothing called it."""
_EVENTS_AT_ONCE = 1000
_SWEEP_SHARE = 10
"""Sweeps that are asked for take at most a tenth of the time."""


@dataclass(frozen=True, slots=True)
class _Parts:
    writer: Writer
    presence: Presence
    intake: Intake
    sweeper: Sweeper
    turns: Turns
    remaker: Remaker
    compactor: Compactor
    limits: Limits


def steady() -> Callable[[], float]:
    """Epoch seconds as this process began with them, going on evenly: work that was put off comes
    in time although somebody sets the clock back."""
    began = time.time() - time.monotonic()
    return lambda: began + time.monotonic()


class Worker:
    """`run` follows until `stop` is set; `complete` makes one pass. `clock`: epoch seconds that
    never jump.

    Made with another embedder than `embedder`, the knowledge base is made anew; `others` gives the
    one that its files need until then.
    """

    def __init__(
        self,
        listed: Listed,
        uploads: Path,
        embedder: Embedder,
        kb_settings: KbSettings,
        settings: IngestSettings,
        stop: threading.Event,
        *,
        others: Named | None = None,
        clock: Callable[[], float] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.listed = listed
        self.watching = threading.Event()
        self._uploads = uploads
        self._embedder = embedder
        self._others = others
        self._kb_settings = kb_settings
        self._settings = settings
        self._clock = clock or steady()
        self._rng = rng or random.Random()
        self._stop = stop
        self._wake = threading.Event()
        self._next_sweep = 0.0
        self._swept_at = float("inf")  # what happened before nobody waited for
        self._sweep_seconds = 0.0

    def stop(self) -> None:
        """Set `stop`, and do not let the worker sleep over it. From any thread."""
        self._stop.set()
        self._wake.set()

    def run(self) -> None:
        """Follow the folders. Raises WriterBusy, StoreBroken at the start."""
        while not self._stop.is_set():  # again, each time it was made anew
            self._follow()

    def _follow(self) -> None:
        with self._open() as parts:
            self._next_sweep = 0.0  # nobody watched before
            watcher = Watcher(self._wake.set, self._clock)
            try:
                watcher.tend(self._roots(parts))
                self.watching.set()
                while not self._stop.is_set() and not parts.remaker.is_done:
                    self._step(parts, watcher)
            finally:
                watcher.stop()

    def complete(self) -> None:
        """One sweep, and all the work it finds, retries included."""
        while self._made_anew():
            pass
        with self._open() as parts:
            self._sweep(parts)
            while not self._stop.is_set():
                self._wake.clear()
                more = parts.turns.turn()  # at least once: deletions alone are published too
                if not self._waiting(parts):
                    break
                self._pause(parts, 0.0 if more else _TICK)
            while not self._stop.is_set() and parts.compactor.step():
                pass

    def _made_anew(self) -> bool:
        with self._open() as parts:
            while not self._stop.is_set() and parts.remaker.step():
                pass
            return parts.remaker.is_done

    def _step(self, parts: _Parts, watcher: Watcher) -> None:
        self._wake.clear()  # before looking, so that nothing that comes meanwhile is slept over
        watcher.tend(self._roots(parts))
        while events := _drain(watcher.events):
            parts.intake.apply(events)
        if self._clock() >= self._sweep_due(watcher.sweep_wanted.is_set()):
            watcher.sweep_wanted.clear()
            self._sweep(parts)
            parts.limits.tell(watcher.unwatched(), watcher.lack)
        more = parts.turns.turn() or not watcher.events.empty()
        if not more and parts.turns.is_idle:
            more = parts.remaker.step() or parts.compactor.step()
        if not more:
            self._pause(parts, _TICK)

    def _sweep(self, parts: _Parts) -> None:
        started = self._clock()
        for root in self._roots(parts):
            events = parts.sweeper.sweep(root, self._swept_at, started)
            if events:
                log.info("sweep of %s found %d changes", root, len(events))
            parts.intake.apply(events, swept=True)
        now = self._clock()
        self._swept_at = started
        self._sweep_seconds = now - started
        self._next_sweep = now + self._settings.sweep_seconds

    def _sweep_due(self, wanted: bool) -> float:
        if not wanted:
            return self._next_sweep
        last = self._next_sweep - self._settings.sweep_seconds
        return last + _SWEEP_SHARE * self._sweep_seconds

    def _pause(self, parts: _Parts, at_most: float) -> None:
        due = parts.writer.ledger.next_due()
        wait = at_most if due is None else min(at_most, max(0.0, due - self._clock()))
        self._wake.wait(wait)

    def _roots(self, parts: _Parts) -> list[Path]:
        """Uploads first: somebody waits for them, and a large folder may take all watches."""
        return [self._uploads, *map(Path, parts.writer.ledger.folders())]

    def _waiting(self, parts: _Parts) -> bool:
        """Whether anything is in progress that can be finished now: its disk is there."""
        if not parts.turns.is_idle:
            return True
        waiting = parts.writer.ledger.waiting()
        return any(parts.presence.is_there(Path(file.folder), file.path) for file in waiting)

    @contextmanager
    def _open(self) -> Iterator[_Parts]:
        settings = self._settings
        with (
            open_writer(self.listed, self._clock) as writer,
            closing(self._remaker(writer)) as remaker,
        ):
            store, ledger = writer.store, writer.ledger
            ledger.hasten(settings.retry_max_seconds)
            doubt(store, ledger, settings, os.environ)
            presence = Presence(store)
            embedder = embedder_of(store, self._embedder, self._others)
            pipeline = Pipeline(store, ledger, embedder, self._kb_settings, settings)
            with closing(Ahead(pipeline, settings, self._wake.set)) as ahead:
                yield _Parts(
                    writer,
                    presence,
                    Intake(store, ledger, presence, self._uploads, self._clock),
                    Sweeper(ledger, presence),
                    Turns(writer, pipeline, ahead, presence, settings, self._clock, self._rng),
                    remaker,
                    Compactor(writer, settings, self._clock, self._wake.is_set),
                    Limits(store, settings.sweep_seconds),
                )

    def _remaker(self, writer: Writer) -> Remaker:
        return Remaker(writer, self._embedder, self._kb_settings, self._settings, self._clock)


def _drain(events: "queue.Queue[FileEvent]") -> list[FileEvent]:
    out: list[FileEvent] = []
    while len(out) < _EVENTS_AT_ONCE:
        try:
            out.append(events.get_nowait())
        except queue.Empty:
            break
    return out
