"""Watched folders -> file events. The only file that imports watchdog; knows no ledger.

Events are hints: they say where to look, and the sweep finds what they miss. Whatever is not a
plain change of one file (a directory that moved, a lost event, a folder that was replaced) becomes
a request for a sweep.
"""

import errno
import logging
import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Literal

from watchdog import events as wd
from watchdog.observers.api import BaseObserver, ObservedWatch
from watchdog.observers.inotify import InotifyFullEmitter
from watchdog.observers.inotify_c import (
    CallbackId,
    InotifyConstants,
    InotifyEvent,
    InotifyFD,
    Mask,
    WatchCallback,
    WatchDescriptor,
)
from watchdog.observers.inotify_move_event_grouper import InotifyMoveEventGrouper

from ingest.files import ignored
from ingest.limits import lacking, limit
from ingest.mounts import Mount, mounts, within

log = logging.getLogger(__name__)

# Reading a file (opened, closed without writing) is not listed, so our own work makes no events.
_LISTENED: list[type[wd.FileSystemEvent]] = [
    wd.FileCreatedEvent,
    wd.FileClosedEvent,
    wd.FileMovedEvent,
    wd.FileDeletedEvent,
    wd.DirCreatedEvent,
    wd.DirMovedEvent,
    wd.DirDeletedEvent,
]
_BACKLOG = 20_000
_AGAIN = 60.0
"""Seconds until a folder that could not be watched is tried again."""
# How long the two halves of a move are waited for. The kernel tells both at once; watchdog's own
# half second holds up whatever comes behind a move.
InotifyMoveEventGrouper.delay = 0.02

Kind = Literal["changed", "closed", "deleted", "moved"]


@dataclass(frozen=True, slots=True)
class FileEvent:
    """Something happened to `path` in `folder`; `dest` is where a moved file went. `at` is when it
    was seen (epoch seconds). `changed` says nothing of whether somebody still writes the file;
    `closed` says that nobody does."""

    kind: Kind
    folder: str
    path: str
    dest: str = ""
    at: float | None = None


@dataclass(frozen=True, slots=True)
class _Watched:
    """A folder as it was when it was watched."""

    watch: ObservedWatch
    identity: tuple[int, int]
    mounts: frozenset[Mount]
    limit: int


class Watcher:
    """Follows folders with inotify, recursively, never through symbolic links.

    Events wait in `events`; `sweep_wanted` is set when they do not tell the whole story.
    `notify` is called, from watchdog's threads, after either. `clock` gives epoch seconds.
    """

    def __init__(self, notify: Callable[[], None], clock: Callable[[], float] = time.time) -> None:
        self.events: queue.Queue[FileEvent] = queue.Queue(_BACKLOG)
        self.sweep_wanted = Event()
        self._notify = notify
        self._clock = clock
        self._watched: dict[Path, _Watched] = {}
        self._refused: dict[Path, float] = {}  # folders that could not be watched: not before then
        self._inotify = _Inotify()
        # Full events: a file moved in from outside is told from one that is being created.
        self._observer = BaseObserver(InotifyFullEmitter, inotify_fd=self._inotify)
        # Watchdog tells of lost events only in its log.
        self._oddities = _Oddities(self.want_sweep)
        logging.getLogger("watchdog").addHandler(self._oddities)

    def start(self, folders: Sequence[Path]) -> None:
        self._inotify.start()
        self._observer.start()
        self.tend(folders)

    def stop(self) -> None:
        logging.getLogger("watchdog").removeHandler(self._oddities)
        for thread in (self._observer, self._inotify):
            thread.stop()
            thread.join()

    def tend(self, folders: Sequence[Path]) -> None:
        """Watch folders that have appeared; watch anew those that were replaced, and those in which
        a disk came or went: nothing else tells of one, and its folders have no watch yet. A
        folder that was deleted and made again may look the same; then its old emitter has ended.
        So may a disk that went and came back meanwhile; then the kernel told that it went. Where
        watches were refused, all are tried again when the kernel's limit is raised."""
        alive = {emitter.watch for emitter in self._observer.emitters if emitter.is_alive()}
        went = self._inotify.unmounted.is_set()
        self._inotify.unmounted.clear()  # before looking: one that goes now is told again
        everywhere = mounts()
        most = limit() if self._inotify.refused else 0
        for folder in folders:
            identity, inside = _identity(folder), within(folder, everywhere)
            known = self._watched.get(folder)
            if known is not None:
                same = (known.identity, known.mounts) == (identity, inside)
                stays = not (went and inside) and most <= known.limit
                if same and stays and known.watch in alive:
                    continue
                self._observer.unschedule(known.watch)
                del self._watched[folder]
            if identity is not None and self._clock() >= self._refused.get(folder, 0.0):
                self._watch(folder, identity, inside)

    def unwatched(self) -> dict[str, int]:
        """For each followed folder of which some folders got no watch, how many."""
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

    def _watch(self, folder: Path, identity: tuple[int, int], inside: frozenset[Mount]) -> None:
        handler = _Translator(folder, self)
        try:
            watch = self._observer.schedule(
                handler, str(folder), recursive=True, event_filter=_LISTENED
            )
        except OSError as error:
            # The periodic sweep still sees changes. Of the kernel's limit tells `unwatched`.
            if folder not in self._refused and error.errno != errno.ENOSPC:
                log.warning("cannot watch %s (%s); changes are seen by the sweep", folder, error)
            self._refused[folder] = self._clock() + _AGAIN
            return
        self._refused.pop(folder, None)
        self._watched[folder] = _Watched(watch, identity, inside, limit())
        self.want_sweep()


class _Inotify(InotifyFD):
    """Keeps what watchdog does not hand on: that a disk with watched folders was unmounted, and
    which folders were refused a watch, as the kernel's limit is reached."""

    def __init__(self) -> None:
        super().__init__()
        self.unmounted = Event()
        self.refused: set[bytes] = set()

    def add_callback(
        self, path: bytes, mask: Mask, callback: WatchCallback, id_: CallbackId
    ) -> WatchDescriptor:
        try:
            watch = super().add_callback(path, mask, callback, id_)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                self.refused.add(path)
            raise
        self.refused.discard(path)
        return watch

    def handle_event(self, event: InotifyEvent) -> None:
        super().handle_event(event)
        if event.mask & InotifyConstants.IN_UNMOUNT:
            self.unmounted.set()


_KINDS: dict[type[wd.FileSystemEvent], Kind] = {
    wd.FileClosedEvent: "closed",
    wd.FileDeletedEvent: "deleted",
}


class _Translator(wd.FileSystemEventHandler):
    """Watchdog's events of one folder -> ours."""

    def __init__(self, folder: Path, watcher: Watcher) -> None:
        self._folder = folder
        self._watcher = watcher

    def dispatch(self, event: wd.FileSystemEvent) -> None:
        source, dest = self._relative(event.src_path), self._relative(event.dest_path)
        if event.is_directory:
            # What a directory holds is asked of the disk; its files' own events may be lost.
            if not (ignored(source or dest) and ignored(dest or source)):
                self._watcher.want_sweep()
        elif event.event_type == wd.EVENT_TYPE_MOVED:
            self._moved(source, dest)
        elif source and not ignored(source):
            kind = _KINDS.get(type(event), "changed")
            self._watcher.put(FileEvent(kind, str(self._folder), source))

    def _moved(self, source: str, dest: str) -> None:
        """A move from or to nowhere (outside, a temporary name) is a change or a deletion."""
        folder = str(self._folder)
        from_here = bool(source) and not ignored(source)
        to_here = bool(dest) and not ignored(dest)
        if from_here and to_here:
            self._watcher.put(FileEvent("moved", folder, source, dest))
        elif to_here:
            self._watcher.put(FileEvent("closed", folder, dest))
        elif from_here:
            self._watcher.put(FileEvent("deleted", folder, source))

    def _relative(self, path: bytes | str) -> str:
        """The path inside the folder; empty for the folder itself and for no path."""
        text = path.decode() if isinstance(path, bytes) else path
        if not text or Path(text) == self._folder:
            return ""
        return Path(text).relative_to(self._folder).as_posix()


class _Oddities(logging.Handler):
    def __init__(self, tell: Callable[[], None]) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell()


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
