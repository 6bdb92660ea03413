"""How a training process on a CPU gets its memory: glibc without its cache of small blocks.

That cache keeps freed blocks of up to a kilobyte, which lie between the large ones of tensors and
keep them from being joined and used again: with it a run took up to half more memory, and was no
faster (docs/decisions/015-heap.md). glibc reads the setting when a process starts.
"""

from collections.abc import Mapping

TUNABLES = "GLIBC_TUNABLES"
_CACHE = "glibc.malloc.tcache_count"


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` with the cache off, unless it says already what the cache shall be."""
    said = [one for one in environ.get(TUNABLES, "").split(":") if one]
    if not any(one.startswith(f"{_CACHE}=") for one in said):
        said.append(f"{_CACHE}=0")
    return {**environ, TUNABLES: ":".join(said)}
