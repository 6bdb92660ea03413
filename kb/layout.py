"""Where the parts of a knowledge base lie in its folder."""

from pathlib import Path

from kb.store import Store

DATABASE = "knowledge.db"
LEXICAL = "lexical"


def lexical_of(store: Store) -> Path:
    """Where a knowledge base's lexical index is; it moves when it is made anew."""
    return store.file.with_name(store.meta("lexical") or LEXICAL)
