"""`vademecum kb rebuild`: a knowledge base's indexes anew, and its passages too if today's embedder
or chunker is another. Done here while nobody writes it; else whoever does (ingest) is asked.
"""

import time
from collections.abc import Callable
from pathlib import Path

from kb.catalog import Listed
from kb.embedders import Embedders
from kb.errors import UnknownKnowledgeBase, WriterBusy
from kb.gathered import Recipe
from kb.layout import DATABASE
from kb.locks import WRITER, exclusive
from kb.rebuild import REQUEST, clear, renew
from kb.remake import Remake, forget, made
from kb.store import Store

_POLL = 0.2


def rebuild(
    listed: Listed,
    today: Recipe,
    embedders: Embedders,
    say: Callable[[str], None] = lambda line: None,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Returns the new generation. Questions are answered all the time.

    Raises StoreBroken, StoreDown, EmbedderDown; UnknownKnowledgeBase if it is removed meanwhile.
    """
    asked = listed.folder / REQUEST
    said = False
    while listed.folder.is_dir():
        try:
            with exclusive(listed.folder / WRITER, f"knowledge base {listed.name}"):
                return _alone(listed.folder, today, embedders)
        except WriterBusy as error:
            if not said:
                asked.touch()
                say(f"{error}, which is asked to do it")
                said = True
            elif not asked.exists():
                return _generation(listed.folder)
        sleep(_POLL)
    raise UnknownKnowledgeBase(f"knowledge base {listed.name} was removed")


def _alone(folder: Path, today: Recipe, embedders: Embedders) -> int:
    store = Store(folder / DATABASE)
    try:
        if made(store, today) == today:
            forget(store)
            generation = renew(store)
        else:
            generation = Remake(store, today, embedders(today.embedder)).finish()
        clear(store)
        (folder / REQUEST).unlink(missing_ok=True)
        return generation
    finally:
        store.close()


def _generation(folder: Path) -> int:
    store = Store(folder / DATABASE, readonly=True)
    try:
        return store.generation()
    finally:
        store.close()
