"""One of the kernel's inotify instances: folders -> file events. The only file that imports
watchdog.

Whatever is not a plain change of one file (a directory that moved, a lost event) becomes a request
for a sweep.
"""

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path
from threading import Event

from watchdog import events as wd
from watchdog.observers import inotify
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

from ingest.events import FileEvent, Kind
from ingest.files import ignored

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
_KINDS: dict[type[wd.FileSystemEvent], Kind] = {
    wd.FileClosedEvent: "closed",
    wd.FileDeletedEvent: "deleted",
}
# How long the two halves of a move are waited for. The kernel tells both at once; watchdog's own
# half second holds up whatever comes behind a move.
InotifyMoveEventGrouper.delay = 0.02
# An event that was on its way when its folder was unwatched: watchdog drops it, as it should, and
# calls that an error.
logging.getLogger(inotify.__name__).addFilter(
    lambda record: "when the thread is inactive" not in record.getMessage()
)


class Inotify:
    """Watches folders recursively, never through symbolic links. `put` and `sweep` are called from
    watchdog's threads. Raises OSError (EMFILE where this user has no instance left, or this process
    no open file).

    `unmounted` is set when a disk with watched folders was unmounted; `astray` when a folder may
    have moved with one in it that has no watch; `refused` are the folders that got no watch, as the
    kernel has none left.
    """

    def __init__(self, put: Callable[[FileEvent], None], sweep: Callable[[], None]) -> None:
        self._put = put
        self._sweep = sweep
        self._watches: dict[Path, ObservedWatch] = {}
        self._reader = _Reader()
        self.unmounted = self._reader.unmounted
        self.astray = self._reader.astray
        self.refused = self._reader.refused
        # Full events: a file moved in from outside is told from one that is being created.
        self._observer = BaseObserver(InotifyFullEmitter, inotify_fd=self._reader)
        # Watchdog tells of lost events only in its log.
        self._oddities = _Oddities(sweep)
        logging.getLogger("watchdog").addHandler(self._oddities)
        self._reader.start()
        self._observer.start()

    def stop(self) -> None:
        logging.getLogger("watchdog").removeHandler(self._oddities)
        for thread in (self._observer, self._reader):
            thread.stop()
            thread.join()

    def watch(self, folder: Path) -> None:
        """Raises OSError; ENOSPC where the kernel has no watch left."""
        handler = _Translator(folder, self._put, self._sweep)
        self._watches[folder] = self._observer.schedule(
            handler, str(folder), recursive=True, event_filter=_LISTENED
        )

    def unwatch(self, folder: Path) -> None:
        self._observer.unschedule(self._watches.pop(folder))

    def is_watched(self, folder: Path) -> bool:
        """False too when the folder was deleted since, and made again."""
        watch = self._watches.get(folder)
        return any(e.watch == watch and e.is_alive() for e in self._observer.emitters)


class _Reader(InotifyFD):
    """Keeps what watchdog does not hand on."""

    def __init__(self) -> None:
        try:
            super().__init__()
        except OSError:
            # The instance was had, but not the pipe beside it.
            if (handle := getattr(self, "_inotify_fd", None)) is not None:
                os.close(handle)
            raise
        self.unmounted = Event()
        self.astray = Event()
        self.refused: set[bytes] = set()
        self._vanished = False

    def add_callback(
        self, path: bytes, mask: Mask, callback: WatchCallback, id_: CallbackId
    ) -> WatchDescriptor:
        try:
            watch = super().add_callback(path, mask, callback, id_)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                self.refused.add(path)
            self._vanished |= error.errno in (errno.ENOENT, errno.ENOTDIR)
            raise
        self.refused.discard(path)
        return watch

    def handle_event(self, event: InotifyEvent) -> None:
        super().handle_event(event)
        if event.mask & InotifyConstants.IN_UNMOUNT:
            self.unmounted.set()
        if event.is_moved_to and event.is_directory and self._vanished:
            # A folder was made, and the one that it is in moved before it could be watched:
            # watchdog takes along what is watched, and looks for no more.
            self._vanished = False
            self.astray.set()


class _Translator(wd.FileSystemEventHandler):
    """Watchdog's events of one folder -> ours."""

    def __init__(
        self, folder: Path, put: Callable[[FileEvent], None], sweep: Callable[[], None]
    ) -> None:
        self._folder = folder
        self._put = put
        self._sweep = sweep

    def dispatch(self, event: wd.FileSystemEvent) -> None:
        source, dest = self._relative(event.src_path), self._relative(event.dest_path)
        if event.is_directory:
            # What a directory holds is asked of the disk; its files' own events may be lost.
            if not (ignored(source or dest) and ignored(dest or source)):
                self._sweep()
        elif event.event_type == wd.EVENT_TYPE_MOVED:
            self._moved(source, dest)
        elif source and not ignored(source):
            kind = _KINDS.get(type(event), "changed")
            self._put(FileEvent(kind, str(self._folder), source))

    def _moved(self, source: str, dest: str) -> None:
        """A move from or to nowhere (outside, a temporary name) is a change or a deletion."""
        folder = str(self._folder)
        from_here = bool(source) and not ignored(source)
        to_here = bool(dest) and not ignored(dest)
        if from_here and to_here:
            self._put(FileEvent("moved", folder, source, dest))
        elif to_here:
            self._put(FileEvent("closed", folder, dest))
        elif from_here:
            self._put(FileEvent("deleted", folder, source))

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
