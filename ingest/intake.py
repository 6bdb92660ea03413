"""File events -> the ledger. Decides what an event means for what is known; reads no content."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from ingest.files import Stamp, ignored, stamp
from ingest.watch import FileEvent
from kb.ledger import File, Ledger
from kb.store import Store


class Intake:
    """Writes events of one knowledge base into its ledger. Events are hints: the disk decides."""

    def __init__(self, store: Store, ledger: Ledger, uploads: Path, settle: float) -> None:
        self._store = store
        self._ledger = ledger
        self._uploads = str(uploads)
        self._settle = settle

    def apply(self, events: Iterable[FileEvent]) -> None:
        """Take over a number of events in one transaction."""
        with self._store.transaction():
            for event in events:
                if event.kind == "moved":
                    self._moved(event)
                elif event.kind == "deleted":
                    self._deleted(event.folder, event.path)
                else:
                    self._changed(event.folder, event.path)

    def _changed(self, folder: str, path: str) -> None:
        found = stamp(Path(folder), path)
        if found is None or ignored(path):
            return
        known = self._ledger.find(folder, path)
        if known is None or known.status == "in_progress" or _version(known) != found:
            file_id = self._file_id(folder, path)
            self._ledger.changed(folder, path, delay=self._settle, file_id=file_id)

    def _deleted(self, folder: str, path: str) -> None:
        # Editors save by moving the file away and writing it anew: a moment later it exists again.
        # So the worker looks for the file, and forgets it if it is not there. And while the folder
        # itself is away (a disk not mounted), nothing in it is known to be deleted.
        gone = Path(folder).is_dir() and stamp(Path(folder), path) is None
        if gone and self._ledger.find(folder, path) is not None:
            self._ledger.changed(folder, path, delay=self._settle)

    def _moved(self, event: FileEvent) -> None:
        folder, path, dest = event.folder, event.path, event.dest
        known = self._ledger.find(folder, path)
        if known is None or self._ledger.find(folder, dest) or self._is_there(folder, path):
            # Saved by renaming a draft over the file, or a backup was made: the document stays
            # where its name is.
            self._changed(folder, dest)
            self._deleted(folder, path)
            self._changed(folder, path)
        elif self._is_there(folder, dest):
            self._ledger.renamed(known, folder, dest, reread=self._name_matters(known, dest))
            self._ledger.changed(folder, dest, delay=self._settle)
        else:
            self._deleted(folder, path)

    def _is_there(self, folder: str, path: str) -> bool:
        return stamp(Path(folder), path) is not None

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


def _version(file: File) -> Stamp:
    return Stamp(file.size, file.mtime_ns)
