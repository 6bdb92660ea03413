"""A knowledge base's database, opened by its one writer: if it is there, and is the one meant.

A knowledge base may be removed at any time, and another made of its name. Knows nothing of what is
written.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from kb.catalog import Listed
from kb.errors import UnknownKnowledgeBase
from kb.layout import DATABASE
from kb.locks import WRITER, exclusive
from kb.store import Store


@contextmanager
def opened(listed: Listed, what: str) -> Iterator[Store]:
    """Hold the writer's lock and the store. Raises WriterBusy, naming `what`; StoreBroken,
    StoreDown; UnknownKnowledgeBase for one that was removed, also if another has its name now."""
    removed = UnknownKnowledgeBase(f"knowledge base {listed.name} was removed")
    file = listed.folder / DATABASE
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive(listed.folder / WRITER, what, make=False))
        except FileNotFoundError as error:
            raise removed from error
        if not file.is_file():
            raise removed
        store = Store(file)
        stack.callback(store.close)
        if not listed.problem and store.meta("id") != listed.id:
            raise removed
        yield store
