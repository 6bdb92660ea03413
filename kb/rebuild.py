"""Makes a knowledge base's lexical index anew, beside the present one, and switches in one commit.

Which folder holds the index is written in the database. So a reader meets the new index together
with the generation that it belongs to, and never finds none; one that has the old index open
reads on in it until its next search. An index that is missing, broken or far behind is made anew by
whoever opens it for writing. Knows nothing of embedders.
"""

import logging
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from kb.errors import StoreBroken, StoreDown
from kb.feed import Feed
from kb.layout import LEXICAL, lexical_at, lexical_of
from kb.lexical import LexicalIndex
from kb.records import Changes, Entry
from kb.store import Store

log = logging.getLogger(__name__)

REQUEST = "rebuild.wanted"
"""In a knowledge base's folder: somebody wants its indexes anew. Whoever writes it next obeys."""
FAR = 5000
"""Changed passages that an index takes over at once, with their vectors, all in memory."""
SLICE = 5000
"""Passages of one commit to a new index."""


def renew(store: Store) -> int:
    """The index of the passages that live now; for whoever holds the writer's lock.

    Returns the new generation. Raises StoreBroken, StoreDown; then all is as it was.
    """
    return switch(store, _living(store), lambda db, generation: None)


def switch(
    store: Store,
    slices: Iterable[Sequence[Entry]],
    change: Callable[[sqlite3.Connection, int], None],
) -> int:
    """An index of these entries becomes the knowledge base's in the commit that makes `change`
    (given the connection and the new generation). Returns, and raises, as `renew` does."""
    generation = store.generation() + 1
    place = lexical_at(store, generation)
    shutil.rmtree(place, ignore_errors=True)  # of a crash
    try:
        _fill(place, slices, generation)
        with store.transaction() as db:
            store.touch()
            change(db, generation)
            store.set_meta("lexical", place.name)
    except (StoreBroken, StoreDown):
        shutil.rmtree(place, ignore_errors=True)  # what is half built fills the disk
        raise
    return generation


def usable(store: Store) -> LexicalIndex:
    """The index opened for writing and caught up, for whoever holds the writer's lock. What cannot
    be used is built again from SQLite, beside: on a full disk that fails too, and readers keep what
    they have. Raises StoreDown."""
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


def clear(store: Store) -> None:
    """Remove what a switch left behind: every lexical index but the one that is in use."""
    current = lexical_of(store)
    for folder in current.parent.glob(f"{LEXICAL}*"):
        if folder != current:
            shutil.rmtree(folder, ignore_errors=True)


def _fill(place: Path, slices: Iterable[Sequence[Entry]], generation: int) -> None:
    index = LexicalIndex(place, readonly=False)
    try:
        for entries in slices:
            index.catch_up(Changes(0, tuple(entries)))
        index.catch_up(Changes(generation))
    finally:
        index.close()


def _living(store: Store) -> Iterator[tuple[Entry, ...]]:
    after, upto = 0, store.generation()
    while entries := Feed(store).entries(after, upto, SLICE):
        yield entries
        after = entries[-1].id


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
