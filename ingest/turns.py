"""Turns of work on the files that are due: begin some, embed a slice, store what is whole.

The newest change comes first, and no turn is long, so a file that a person just saved overtakes a
bulk load. Knows nothing of events and folders' sweeps.
"""

import logging
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from ingest.failures import classify, code_of
from ingest.files import Stamp, StillChanging, stamp
from ingest.pipeline import Draft, Pipeline
from ingest.settings import IngestSettings
from ingest.writer import Writer
from kb.errors import StoreBroken, Transient, Unreadable
from kb.ledger import File

log = logging.getLogger(__name__)

_LARGEST_SLICE = 1024
_LOOK_AT = 512
"""Due files that a turn looks at; most of them quickly, when they are gone or unchanged."""
_UNKNOWN = Stamp(0, 0)
"""The version of a file that the next sweep shall find changed, so that it is tried again."""


class Turns:
    """The work of one knowledge base. For one thread; `clock` gives epoch seconds."""

    def __init__(
        self,
        writer: Writer,
        pipeline: Pipeline,
        settings: IngestSettings,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._writer = writer
        self._pipeline = pipeline
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self._drafts: list[Draft] = []
        self._slice = settings.batch_passages

    def turn(self) -> bool:
        """Do some work and publish it. Returns whether more is waiting right now."""
        self._drafts = [draft for draft in self._drafts if self._pipeline.is_wanted(draft)]
        self._begin()
        self._embed()
        self._finish()
        self._writer.publish()
        return bool(self._drafts or self._writer.ledger.due(1))

    def _begin(self) -> None:
        """Read due files, newest first, until the next slice is full of passages no older."""
        until = self._clock() + self._settings.turn_seconds
        begun = {draft.file.id for draft in self._drafts}
        gone: list[File] = []
        for file in self._writer.ledger.due(_LOOK_AT):
            ahead = [d for d in self._drafts if d.file.changed_at >= file.changed_at]
            full = sum(d.missing for d in ahead) >= self._slice
            if full or len(ahead) >= self._settings.batch_files or self._clock() > until:
                break
            if file.id not in begun and not self._begin_one(file):
                gone.append(file)
        self._forget(gone)
        self._drafts.sort(key=lambda draft: -draft.file.changed_at)
        # Memory stays bounded: what falls off the end is still in the ledger and is begun again.
        del self._drafts[self._settings.batch_files :]

    def _begin_one(self, file: File) -> bool:
        """Returns whether the file is there at all."""
        try:
            self._drafts.append(self._pipeline.begin(file))
        except (FileNotFoundError, NotADirectoryError):
            return False
        except (Unreadable, Transient, OSError) as error:
            self._failed(file, error)
        except Exception as error:
            log.exception("unexpected failure with %s", file.path)
            self._failed(file, error)
        return True

    def _forget(self, gone: Sequence[File]) -> None:
        """Files that are not there; their folder may have vanished with them."""
        delay = self._settings.retry_max_seconds
        ledger = self._writer.ledger
        with self._writer.store.transaction():
            for file in gone:
                if Path(file.folder).is_dir():
                    ledger.forget(file)
                    log.info("gone %s", file.path)
                else:
                    message = "its folder is missing"
                    ledger.retry(file, "temporary", message, delay=delay, counted=False)

    def _embed(self) -> None:
        """One embedding call. Its size doubles while calls are quick (a fast device, short texts)
        and halves when they are slow."""
        taken: list[Draft] = []
        wanted = 0
        for draft in self._drafts:
            if wanted < self._slice and draft.missing:
                taken.append(draft)
                wanted += draft.missing
        if not taken:
            return
        started = self._clock()
        try:
            self._pipeline.embed(taken, self._slice)
        except Transient as error:
            self._drop(taken, error)
        except Exception as error:
            log.exception("embedding failed")
            self._drop(taken, error)
        seconds = self._clock() - started
        if seconds > self._settings.turn_seconds:
            self._slice = max(self._settings.batch_passages, self._slice // 2)
        elif wanted >= self._slice and seconds < self._settings.turn_seconds / 4:
            self._slice = min(_LARGEST_SLICE, self._slice * 2)

    def _finish(self) -> None:
        whole = [draft for draft in self._drafts if not draft.missing]
        self._drafts = [draft for draft in self._drafts if draft.missing]
        if whole:
            self._store(whole)

    def _store(self, whole: Sequence[Draft]) -> None:
        """A file is completed only when the lexical index holds it too."""
        try:
            stored = self._pipeline.finish(whole)
        except Exception as error:
            log.exception("storing failed")
            if len(whole) == 1:
                self._drop(whole, error)
                return
            # One file that cannot be stored shall not keep its neighbours out.
            for draft in whole:
                self._store([draft])
            return
        generation = self._writer.publish()
        with self._writer.store.transaction():
            for draft in stored:
                self._writer.ledger.completed(draft.file, size=draft.size, mtime_ns=draft.mtime_ns)
        for draft in stored:
            log.info(
                "completed %s passages=%d generation=%d seconds=%.2f",
                draft.file.path,
                len(draft.pieces),
                generation,
                self._clock() - draft.file.changed_at,
            )

    def _drop(self, drafts: Sequence[Draft], error: Exception) -> None:
        gone = {draft.file.id for draft in drafts}
        self._drafts = [draft for draft in self._drafts if draft.file.id not in gone]
        for draft in drafts:
            self._failed(draft.file, error)

    def _failed(self, file: File, error: Exception) -> None:
        """Try again later, or give up: then the old passages go, as they are no longer true."""
        if isinstance(error, StoreBroken):
            raise error  # the knowledge base is damaged, not this file
        ledger, policy = self._writer.ledger, self._settings.retry
        problem = classify(error, file.path)
        code, message = code_of(problem), str(problem)
        if isinstance(problem, StillChanging):
            ledger.retry(file, code, message, delay=problem.wait, counted=False)
        elif isinstance(problem, Transient) and file.attempts + 1 < policy.attempts:
            delay = policy.delay(file.attempts, self._rng)
            log.warning("%s; trying again in %.1f s", message, delay)
            ledger.retry(file, code, message, delay=delay)
        elif isinstance(problem, Transient):
            log.error("failed %s after %d attempts: %s", file.path, policy.attempts, message)
            ledger.failed(file, code, message, size=0, mtime_ns=0)
        else:
            log.error("failed %s (%s): %s", file.path, code, message)
            self._retire(file, code, message)

    def _retire(self, file: File, code: str, message: str) -> None:
        # A file without permission is tried again by each sweep: permissions leave no other trace.
        found = None if code == "unreadable" else stamp(Path(file.folder), file.path)
        version = found or _UNKNOWN
        with self._writer.store.transaction():
            now = self._writer.ledger.get(file.id)
            if now is not None and now.changed_at == file.changed_at:
                self._writer.store.retire(file.id)
                self._writer.ledger.failed(
                    file, code, message, size=version.size, mtime_ns=version.mtime_ns
                )
