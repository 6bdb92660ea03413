"""`vademecum kb rebuild`: a knowledge base's indexes anew, and its passages too if today's embedder
or chunker is another. Done here while nobody writes it; else whoever does (ingest) is asked.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from kb.catalog import Listed
from kb.embedders import Embedders
from kb.errors import WriterBusy
from kb.gathered import Recipe
from kb.layout import DATABASE
from kb.rebuild import REQUEST, clear, renew
from kb.remake import Remake, forget, made
from kb.store import Store
from kb.writing import opened

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
    while True:
        try:
            with opened(listed, f"knowledge base {listed.name}") as store:
                generation = _alone(store, today, embedders)
                asked.unlink(missing_ok=True)
                return generation
        except WriterBusy as error:
            if not said:
                with suppress(FileNotFoundError):  # removed: the next look tells
                    asked.touch()
                say(f"{error}, which is asked to do it")
                said = True
            elif not asked.exists():
                return _generation(listed.folder)
        sleep(_POLL)


def _alone(store: Store, today: Recipe, embedders: Embedders) -> int:
    if made(store, today) == today:
        forget(store)
        generation = renew(store)
    else:
        generation = Remake(store, today, embedders(today.embedder)).finish()
    clear(store)
    return generation


def _generation(folder: Path) -> int:
    store = Store(folder / DATABASE, readonly=True)
    try:
        return store.generation()
    finally:
        store.close()
