"""Where the parts of a knowledge base lie in its folder."""

from pathlib import Path

from kb.store import Store

DATABASE = "knowledge.db"
LEXICAL = "lexical"
"""What folders of lexical indexes are called, and what an old knowledge base calls its first."""


def lexical_of(store: Store) -> Path:
    """Where a knowledge base's lexical index is; it moves when it is made anew."""
    return store.file.with_name(store.meta("lexical") or LEXICAL)


def lexical_at(store: Store, generation: int) -> Path:
    """Where its index begun at that generation belongs. Named after the knowledge base too: whoever
    writes one that was removed shall never write into another of its name."""
    return store.file.with_name(f"{LEXICAL}-{store.meta('id')}-{generation}")
