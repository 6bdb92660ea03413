"""Rows said twice: word for word, or nearly. Knows nothing of what else may be wrong with them.

Near duplicates: MinHash of word triples with locality-sensitive hashing (Broder 1997; datasketch).
The first of a family stays.
"""

import hashlib
import re
from collections.abc import Sequence

from datasketch import MinHash, MinHashLSH

from finetune.noise import whole
from finetune.rows import Row
from kb.words import CJK

_WORD = re.compile(rf"[{CJK}]|[^\W_{CJK}]+")
PERMUTATIONS = 128
"""The estimate's standard error is below 0.05."""


def exact(rows: Sequence[Row]) -> list[int]:
    """Positions of rows that say what an earlier one says, but for case and spaces."""
    seen: set[bytes] = set()
    out = []
    for n, row in enumerate(rows):
        said = "\0".join([whole(row), row.rejected or ""])
        key = hashlib.sha256(" ".join(said.casefold().split()).encode()).digest()
        if key in seen:
            out.append(n)
        seen.add(key)
    return out


def near(rows: Sequence[Row], threshold: float) -> list[int]:
    """Positions of rows whose estimated Jaccard similarity to an earlier one that stays is at
    least `threshold`; none for 1, which is `exact`'s to find."""
    if threshold >= 1:
        return []
    index = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS)
    kept: dict[str, MinHash] = {}
    out = []
    for n, row in enumerate(rows):
        shingles = _shingles(whole(row))
        if not shingles:
            continue
        hashed = MinHash(num_perm=PERMUTATIONS)
        hashed.update_batch(shingles)
        if any(kept[one].jaccard(hashed) >= threshold for one in index.query(hashed)):
            out.append(n)
            continue
        kept[str(n)] = hashed
        index.insert(str(n), hashed)
    return out


def _shingles(text: str) -> list[bytes]:
    words = _WORD.findall(text.casefold())
    triples = zip(words, words[1:], words[2:], strict=False)
    return [" ".join(triple).encode() for triple in triples] or [w.encode() for w in words]
