"""A knowledge base opened for writing: the lock, the store, the ledger and the lexical index.

Knows which state is truth (SQLite) and which is derived: an index that lags is caught up, one that
is broken is built again.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kb.catalog import Listed
from kb.errors import StoreBroken, StoreDown
from kb.feed import Feed
from kb.layout import lexical_of
from kb.ledger import Ledger
from kb.lexical import LexicalIndex
from kb.rebuild import clear, renew
from kb.store import Store
from kb.writing import opened

log = logging.getLogger(__name__)

FAR = 5000
"""Changed passages that an index takes over at once, with their vectors, all in memory."""


@dataclass(frozen=True, slots=True)
class Writer:
    """What the one writing process holds."""

    store: Store
    ledger: Ledger
    lexical: LexicalIndex

    def publish(self) -> int:
        """Commit to the lexical index what SQLite holds and it does not. Returns the generation.

        Raises StoreDown when it cannot be written or has been damaged; opening again mends it.
        """
        if self.lexical.generation != self.store.generation():
            self.lexical.catch_up(Feed(self.store).changes(self.lexical.generation))
        return self.lexical.generation


@contextmanager
def open_writer(listed: Listed, clock: Callable[[], float]) -> Iterator[Writer]:
    """Open for writing. Raises WriterBusy, StoreBroken, StoreDown, UnknownKnowledgeBase."""
    with opened(listed, f"knowledge base {listed.name}") as store:
        clear(store)
        lexical = _open_lexical(store)
        try:
            yield Writer(store, Ledger(store, clock), lexical)
        finally:
            lexical.close()


def _open_lexical(store: Store) -> LexicalIndex:
    """Open and catch up. What cannot be used is built again from SQLite, beside: on a full disk
    that fails too, and readers keep what they have. Raises StoreDown."""
    try:
        if (index := _caught_up(store)) is not None:
            return index
        log.info("the lexical index is far behind; it is built again from the database")
    except (StoreBroken, StoreDown) as error:  # StoreDown: tantivy finds out while it writes
        log.warning("%s; it is built again from the database", error)
    try:
        renew(store)
        return LexicalIndex(lexical_of(store), readonly=False)
    except StoreBroken as error:  # not for good: it is derived
        raise StoreDown(str(error)) from error


def _caught_up(store: Store) -> LexicalIndex | None:
    """None for one that is so far behind that what it lacks is better read in slices."""
    folder = lexical_of(store)
    index = LexicalIndex(folder, readonly=False)
    if index.generation > store.generation():
        index.close()
        raise StoreBroken(f"the lexical index {folder.name} is ahead of the database")
    try:
        if index.generation < store.generation():
            if Feed(store).is_far(index.generation, FAR):
                index.close()
                return None
            index.catch_up(Feed(store).changes(index.generation))
    except StoreDown:
        index.close()
        raise
    return index
