"""Builds a knowledge base's lexical index again from SQLite, beside the old one, and swaps.

For an index that `kb.verify` complains about. Takes the writer's lock, so ingest must not run.
"""

import shutil
from pathlib import Path

from kb.catalog import Listed
from kb.errors import StoreBroken, StoreDown
from kb.lexical import LexicalIndex
from kb.locks import WRITER, exclusive
from kb.search import DATABASE, LEXICAL
from kb.store import Store


def rebuild(listed: Listed) -> int:
    """Returns the generation of the fresh index. Raises WriterBusy, StoreBroken.

    A reader that is open keeps reading the old index until the next change.
    """
    what = f"knowledge base {listed.name} (stop ingest, or `vademecum up`, first): it"
    with exclusive(listed.folder / WRITER, what):
        store = Store(listed.folder / DATABASE, readonly=True)
        try:
            return swap(listed.folder, store)
        finally:
            store.close()


def swap(folder: Path, store: Store) -> int:
    """For whoever holds the writer's lock. If it fails, the old index is untouched."""
    fresh, old, current = folder / ".lexical-new", folder / ".lexical-old", folder / LEXICAL
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        index = LexicalIndex(fresh, readonly=False)
        try:
            index.catch_up(store.changes(0))
        finally:
            index.close()
    except (StoreBroken, StoreDown):
        shutil.rmtree(fresh, ignore_errors=True)  # what is half built fills the disk
        raise
    if current.exists():
        current.rename(old)
    fresh.rename(current)
    shutil.rmtree(old, ignore_errors=True)
    return index.generation
