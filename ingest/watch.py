"""Watched folders -> file events, as long as the kernel gives what that takes. Knows no ledger.

Events are hints: they say where to look, and the sweep finds what they miss. A folder that is
watched for the first time, or anew, is a request for a sweep.
"""

import errno
import logging
import os
import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event

from ingest.events import FileEvent
from ingest.inotify import Inotify
from ingest.limits import lacking, limit, no_instance
from ingest.mounts import Mount, mounts, within
from kb.unwatched import Lack

log = logging.getLogger(__name__)

_BACKLOG = 20_000
_AGAIN = 60.0
"""Seconds until a folder that could not be watched is tried again, or an inotify instance that the
kernel did not give."""


@dataclass(frozen=True, slots=True)
class _Watched:
    """A folder as it was when it was watched."""

    identity: tuple[int, int]
    mounts: frozenset[Mount]
    limit: int


class Watcher:
    """Follows folders with inotify.

    Events wait in `events`; `sweep_wanted` is set when they do not tell the whole story.
    `notify` is called, from watchdog's threads, after either. `clock` gives epoch seconds.
    """

    def __init__(self, notify: Callable[[], None], clock: Callable[[], float] = time.time) -> None:
        self.events: queue.Queue[FileEvent] = queue.Queue(_BACKLOG)
        self.sweep_wanted = Event()
        self.lack: Lack = "watches"
        """Which limit keeps folders unwatched, if any are."""
        self._notify = notify
        self._clock = clock
        self._inotify: Inotify | None = None
        self._again = 0.0  # no instance is asked for before then
        self._watched: dict[Path, _Watched] = {}
        self._refused: dict[Path, float] = {}  # folders that could not be watched: not before then

    def stop(self) -> None:
        if self._inotify is not None:
            self._inotify.stop()

    def tend(self, folders: Sequence[Path]) -> None:
        """Watch folders that have appeared; watch anew those that were replaced, and those in which
        a disk came or went: nothing else tells of one, and its folders have no watch yet. A
        folder that was deleted and made again may look the same; then it is watched no more.
        So may a disk that went and came back meanwhile; then the kernel told that it went. All are
        watched anew where a folder moved before everything in it was watched, and tried again where
        watches were refused and the kernel's limit is raised. While it gives no inotify instance,
        nothing is watched."""
        inotify = self._instance()
        if inotify is None:
            self._refused = dict.fromkeys(folders, self._again)
            return
        went, astray = inotify.unmounted.is_set(), inotify.astray.is_set()
        inotify.unmounted.clear()  # before looking: one that goes now is told again
        inotify.astray.clear()
        everywhere = mounts()
        most = limit("watches") if inotify.refused else 0
        for folder in folders:
            identity, inside = _identity(folder), within(folder, everywhere)
            known = self._watched.get(folder)
            if known is not None:
                same = (known.identity, known.mounts) == (identity, inside)
                stays = not (went and inside) and not astray and most <= known.limit
                if same and stays and inotify.is_watched(folder):
                    continue
                inotify.unwatch(folder)
                del self._watched[folder]
            if identity is not None and self._clock() >= self._refused.get(folder, 0.0):
                self._watch(inotify, folder, identity, inside)

    def unwatched(self) -> dict[str, int]:
        """For each followed folder of which some folders got no watch, how many."""
        if self._inotify is None:
            return lacking({os.fsencode(root) for root in self._refused}, (), self._refused)
        return lacking(self._inotify.refused, self._watched, self._refused)

    def want_sweep(self) -> None:
        self.sweep_wanted.set()
        self._notify()

    def put(self, event: FileEvent) -> None:
        try:
            self.events.put_nowait(replace(event, at=self._clock()))
        except queue.Full:
            self.sweep_wanted.set()
        self._notify()

    def _instance(self) -> Inotify | None:
        """None while none can be had; of that tells `unwatched`."""
        if self._inotify is None and self._clock() >= self._again:
            try:
                self._inotify = Inotify(self.put, self.want_sweep)
            except OSError as error:
                if error.errno != errno.EMFILE:
                    raise
                self.lack = no_instance()
                self._again = self._clock() + _AGAIN
            else:
                self.lack = "watches"
                self._refused.clear()
        return self._inotify

    def _watch(
        self, inotify: Inotify, folder: Path, identity: tuple[int, int], inside: frozenset[Mount]
    ) -> None:
        try:
            inotify.watch(folder)
        except OSError as error:
            # The periodic sweep still sees changes. Of the kernel's limit tells `unwatched`.
            if folder not in self._refused and error.errno != errno.ENOSPC:
                log.warning("cannot watch %s (%s); changes are seen by the sweep", folder, error)
            self._refused[folder] = self._clock() + _AGAIN
            return
        self._refused.pop(folder, None)
        self._watched[folder] = _Watched(identity, inside, limit("watches"))
        self.want_sweep()


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
