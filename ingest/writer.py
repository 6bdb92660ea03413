"""A knowledge base opened for writing: the lock, the store, the ledger and the lexical index.

Knows which state is truth (SQLite) and which is derived.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kb.catalog import Listed
from kb.feed import Feed
from kb.ledger import Ledger
from kb.lexical import LexicalIndex
from kb.rebuild import clear, usable
from kb.store import Store
from kb.writing import opened


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
        lexical = usable(store)
        try:
            yield Writer(store, Ledger(store, clock), lexical)
        finally:
            lexical.close()
