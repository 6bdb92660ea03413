"""File events -> the ledger. Decides what an event means for what is known; reads no content."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from ingest.bursts import MANY, Bursts
from ingest.events import FileEvent
from ingest.files import Stamp, ignored, same_entry, stamp
from ingest.presence import Presence
from kb.ledger import File, Ledger
from kb.store import Store

_MOMENT = 0.1
"""Seconds in which a file that was made may be closed, and one that went away may be back."""


class Intake:
    """Writes events of one knowledge base into its ledger. Events are hints: the disk decides.
    `clock` gives the time of events that have none (a sweep's)."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        presence: Presence,
        uploads: Path,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._presence = presence
        self._uploads = str(uploads)
        self._clock = clock
        self._bursts = Bursts()

    def apply(self, events: Sequence[FileEvent], *, swept: bool = False) -> None:
        """Take over a number of events in one transaction. What a sweep finds in number is a bulk
        load, however long it took to come about."""
        many = swept and len(events) > MANY
        # Of a file that was made, written and closed, the last event tells enough.
        last = {(e.folder, e.path): e for e in events if e.kind in ("changed", "closed")}
        with self._store.transaction():
            for event in events:
                if event.kind == "moved":
                    self._moved(event, many)
                elif event.kind == "deleted":
                    self._deleted(event, event.path)
                elif last[event.folder, event.path] is event:
                    self._changed(event, event.path, many)

    def _changed(self, event: FileEvent, path: str, many: bool) -> None:
        folder = event.folder
        found = stamp(Path(folder), path)
        if found is None:
            self._deleted(event, path)  # perhaps by a link out of the folder, put in its place
            return
        if ignored(path):
            return
        known = self._ledger.find(folder, path)
        # Whoever closed a file or moved one here may have kept size and time; its bytes will tell.
        # A sweep, and a file that is just being made, have nothing else to go by.
        if event.kind != "changed" or known is None or _is_work(known, found):
            self._ledger.changed(
                folder,
                path,
                # Whoever closed or moved a file is done with it. Others may still be writing.
                delay=_MOMENT if event.kind == "changed" else 0.0,
                file_id=self._file_id(folder, path),
                at=event.at,
                bulk=many or self._is_bulk(event, path, known),
                closed=event.kind != "changed",
            )

    def _is_bulk(self, event: FileEvent, path: str, known: File | None) -> bool:
        """New files and edits are counted apart, and each folder at the top by itself, so that an
        edit overtakes files that are being copied. Uploads have a folder each."""
        edit = known is not None and bool(known.mtime_ns)
        parts = PurePosixPath(path).parts
        top = parts[0] if len(parts) > 1 and event.folder != self._uploads else ""
        kind = f"{event.folder} {top} {edit}"
        return self._bursts.is_one_of_many(kind, path, event.at or self._clock())

    def _deleted(self, event: FileEvent, path: str) -> None:
        # Editors save by moving the file away and writing it anew: a moment later it exists again.
        # So the worker looks for the file, and forgets it if it is not there. And while the folder
        # itself is away (a disk not mounted), nothing in it is known to be deleted.
        # Never in bulk: to forget a file takes no time.
        folder = Path(event.folder)
        gone = stamp(folder, path) is None and self._presence.is_there(folder, path)
        if gone and self._ledger.find(event.folder, path) is not None:
            self._ledger.changed(event.folder, path, delay=_MOMENT, at=event.at)

    def _moved(self, event: FileEvent, many: bool) -> None:
        folder, path, dest = event.folder, event.path, event.dest
        known = self._ledger.find(folder, path)
        if known is None or self._ledger.find(folder, dest) or self._is_left(folder, path, dest):
            # Saved by renaming a draft over the file, or a backup was made: the document stays
            # where its name is.
            self._changed(event, dest, many)
            self._deleted(event, path)
            self._changed(event, path, many)
        elif stamp(Path(folder), dest) is not None:
            bulk = many or self._is_bulk(event, dest, known)
            self._ledger.renamed(known, folder, dest, reread=self._name_matters(known, dest))
            self._ledger.changed(folder, dest, at=event.at, bulk=bulk, closed=True)
        else:
            self._deleted(event, path)

    def _is_left(self, folder: str, path: str, dest: str) -> bool:
        """Whether a file is still there under its old name, and that is not its new one."""
        root = Path(folder)
        return stamp(root, path) is not None and not same_entry(root, path, dest)

    def _name_matters(self, known: File, dest: str) -> bool:
        """Whether the document's title or type came from the name that the file had."""
        old, new = PurePosixPath(known.path), PurePosixPath(dest)
        if old.suffix != new.suffix:
            return True
        document = self._store.document(known.id)
        return document is None or (document.title == old.stem != new.stem)

    def _file_id(self, folder: str, path: str) -> str | None:
        """An upload's folder is named after its file's id, which a client already knows."""
        parts = PurePosixPath(path).parts
        if folder != self._uploads or len(parts) != 2:
            return None
        taken = self._ledger.get(parts[0])
        return parts[0] if taken is None or taken.path == path else None


def _is_work(known: File, found: Stamp) -> bool:
    """Whether this version may be another than the one that is known."""
    unfinished = known.status in ("in_progress", "failed")
    return unfinished or Stamp(known.size, known.mtime_ns) != found
