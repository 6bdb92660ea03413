"""Turns of work on the files that are due: begin some, embed a slice, store what is whole.

Reading goes on in threads (`ingest.ahead`), and a turn is about as long as one embedding call: so
a file that a person just saved overtakes a bulk load. Knows nothing of events and folders' sweeps.
"""

import logging
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from ingest.ahead import Ahead, version
from ingest.failures import classify, code_of
from ingest.files import Refused, Stamp, StillChanging, stamp
from ingest.pipeline import Draft, Pipeline
from ingest.presence import Presence
from ingest.settings import IngestSettings
from ingest.slices import Slices
from ingest.writer import Writer
from kb import latency
from kb.errors import Permanent, StoreBroken, Transient, Unreadable
from kb.ledger import File

log = logging.getLogger(__name__)

_LOOK_AT = 512
"""Due files of the first lane that a turn looks at; most of them quickly, when they are gone."""
_STORED_AT_ONCE = 32
"""Files of a bulk load in one commit, so that it stays short."""
_PATIENCE = 0.05
"""Seconds that an embedding call waits for a file that came alone and is just being read."""
_CALM_AFTER = 20.0
"""Seconds without a file that came alone, after which a load's embedding calls may be longer."""
_TRIES_IN_TIME = 3
"""Times that a file may take too long to be read, before it is to blame and not a busy machine."""
_UNKNOWN = Stamp(0, 0)
"""The version of a file that the next sweep shall find changed, so that it is tried again."""


class Turns:
    """The work of one knowledge base. For one thread; `clock` gives epoch seconds."""

    def __init__(
        self,
        writer: Writer,
        pipeline: Pipeline,
        ahead: Ahead,
        presence: Presence,
        settings: IngestSettings,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._writer = writer
        self._pipeline = pipeline
        self._ahead = ahead
        self._presence = presence
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self._drafts: list[Draft] = []
        self._slices = Slices(settings.turn_seconds)
        self._fresh_at = float("-inf")

    def turn(self) -> bool:
        """Do some work and publish it. Returns whether there is more to do right now."""
        gone = self._begin()
        self._collect()
        self._embed()
        self._finish()
        self._writer.publish()
        return bool(self._drafts) or gone

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        reading = any(self._ahead.count(bulk=bulk) for bulk in (False, True))
        return not self._drafts and not reading

    def _begin(self) -> bool:
        """Have due files read. Returns whether some were gone: then others may take their turn."""
        ledger = self._writer.ledger
        held = {version(draft.file) for draft in self._drafts}
        under_way = len(held) + self._ahead.count(bulk=False) + self._ahead.count(bulk=True)
        gone: list[File] = []
        for bulk, most in ((False, _LOOK_AT), (True, self._room())):
            due = ledger.due(most + under_way, bulk=bulk) if most > 0 else []
            new = [f for f in due if version(f) not in held and f not in self._ahead]
            for file in new[:most]:
                if self._is_gone(file):
                    gone.append(file)
                elif bulk or self._ahead.count(bulk=False) < self._settings.batch_files:
                    self._ahead.begin(file)
        self._forget(gone)
        return bool(gone)

    def _room(self) -> int:
        """How many files of a bulk load may be begun. Memory stays bounded."""
        gathering = [d for d in self._drafts if d.file.bulk and self._slices.is_gathering(d)]
        under_way = self._ahead.count(bulk=True) + len(gathering)
        room = self._settings.batch_files - under_way
        return room if 2 * room >= self._settings.batch_files else 0

    def _is_gone(self, file: File) -> bool:
        try:
            return stamp(Path(file.folder), file.path) is None
        except OSError:
            return False  # reading it will tell

    def _collect(self) -> None:
        """Take over what has been read; drop what is no longer wanted."""
        gone: list[File] = []
        for file, result in self._ahead.done(_PATIENCE if self._drafts else 0.0):
            if isinstance(result, Draft):
                self._drafts.append(result)
                self._fresh_at = self._fresh_at if file.bulk else self._clock()
            elif isinstance(result, FileNotFoundError | NotADirectoryError):
                gone.append(file)
            elif isinstance(result, Exception):
                if not isinstance(result, Unreadable | Transient | OSError):
                    log.error("unexpected failure with %s", file.path, exc_info=result)
                self._failed(file, result)
            else:
                raise result
        self._forget(gone)
        wanted = self._writer.ledger.wanted([draft.file for draft in self._drafts])
        self._drafts = [draft for draft in self._drafts if draft.file.id in wanted]

    def _forget(self, gone: Sequence[File]) -> None:
        """Files that are not there; their folder may have vanished with them."""
        if not gone:
            return
        delay = self._settings.retry_max_seconds
        ledger, store = self._writer.ledger, self._writer.store
        left: list[File] = []
        with store.transaction():
            wanted = ledger.wanted(gone)
            for file in gone:
                if not self._presence.is_there(Path(file.folder), file.path):
                    message = "its folder is missing"
                    ledger.retry(file, "temporary", message, delay=delay, counted=False)
                elif file.id in wanted:
                    left.append(file)
                    ledger.forget(file)
            self._note("gone", left)  # what is dead in SQLite is in no answer
        for file in left:
            log.info("gone %s", file.path)

    def _embed(self) -> None:
        """One embedding call."""
        started = self._clock()
        passages = self._slices.next(self._drafts, calm=started - self._fresh_at > _CALM_AFTER)
        if not passages:
            return
        try:
            self._pipeline.embed(passages)
        except Exception as error:
            if not isinstance(error, Transient):
                log.exception("embedding failed")
            self._drop(list(dict.fromkeys(p.draft for p in passages)), error)
        else:  # how soon a call fails says nothing of how long one takes
            self._slices.took(passages, self._clock() - started)

    def _finish(self) -> None:
        """Store what is whole: at once what came alone, together what came in bulk."""
        whole = [draft for draft in self._drafts if not draft.missing]
        alone = [draft for draft in whole if not draft.file.bulk]
        together = [draft for draft in whole if draft.file.bulk]
        if len(together) < _STORED_AT_ONCE and not self._slices.is_between:
            together = []
        for stored in (alone, together[:_STORED_AT_ONCE]):
            if stored:
                self._drafts = [draft for draft in self._drafts if draft not in stored]
                self._store(stored)

    def _note(self, what: latency.What, files: Sequence[File]) -> None:
        now = self._clock()
        taken = [(file.bulk, now - file.changed_at) for file in files]
        latency.note(self._writer.store, what, taken)

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
                known = draft.stamp
                self._writer.ledger.completed(draft.file, size=known.size, mtime_ns=known.mtime_ns)
            self._note("searchable", [draft.file for draft in stored])
        for draft in stored:
            log.info(
                "completed %s passages=%d generation=%d seconds=%.2f",
                draft.file.path,
                len(draft.pieces),
                generation,
                self._clock() - draft.file.changed_at,
            )

    def _drop(self, drafts: Sequence[Draft], error: Exception) -> None:
        self._drafts = [draft for draft in self._drafts if draft not in drafts]
        for draft in drafts:
            self._failed(draft.file, error, draft.stamp)

    def _failed(self, file: File, error: Exception, version: Stamp = _UNKNOWN) -> None:
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
        elif code == "timeout" and file.attempts + 1 < _TRIES_IN_TIME:
            log.warning("%s; trying again in %g s", message, policy.max_seconds)
            ledger.retry(file, code, message, delay=policy.max_seconds)
        else:
            log.error("failed %s (%s): %s", file.path, code, message)
            # Of the version that was read: the disk may hold a newer one, whose event comes yet.
            # A file without permission was not, and each sweep tries it: permissions leave no
            # other trace.
            self._retire(file, problem, problem.stamp if isinstance(problem, Refused) else version)

    def _retire(self, file: File, problem: Permanent, version: Stamp) -> None:
        with self._writer.store.transaction():
            now = self._writer.ledger.get(file.id)
            if now is not None and now.changed_at == file.changed_at:
                self._writer.store.retire(file.id)
                self._writer.ledger.failed(
                    file,
                    code_of(problem),
                    str(problem),
                    size=version.size,
                    mtime_ns=version.mtime_ns,
                )
