"""How a training process on a CPU keeps its memory in bounds: what it must find in its environment.

glibc keeps freed blocks of up to a kilobyte in a cache, which lie between the large ones of tensors
and keep them from being joined and used again: with it a run took up to half more memory, and was
no faster. oneDNN keeps the code that it compiled for the last 1,024 shapes of bfloat16 matrices; a
run whose batches differ in length has a new shape at every step and uses none of them again, but
those of the batch at hand (docs/decisions/015-heap.md). Both are read when a process starts.
"""

from collections.abc import Mapping

TUNABLES = "GLIBC_TUNABLES"
_CACHE = "glibc.malloc.tcache_count"
SHAPES = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
_SHAPES = "64"
"""Some more than one batch has; with 8 a run took twice the time."""


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` with one cache off and the other small, unless it says already what it shall be."""
    said = [one for one in environ.get(TUNABLES, "").split(":") if one]
    if not any(one.startswith(f"{_CACHE}=") for one in said):
        said.append(f"{_CACHE}=0")
    return {SHAPES: _SHAPES, **environ, TUNABLES: ":".join(said)}
