"""Which disks are mounted in a folder, as the kernel lists them. Knows no watch and no ledger."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_LIST = Path("/proc/self/mountinfo")  # its format: man 5 proc_pid_mountinfo
_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """`what` tells one mount from another at the same place: the kernel's numbers of mount and
    device, and which folder of the disk it shows. Numbers are used again."""

    at: str
    what: str


def mounts() -> list[Mount]:
    """All of them; none where the kernel does not tell."""
    try:
        lines = os.fsdecode(_LIST.read_bytes()).splitlines()
    except OSError:
        return []
    fields = (line.split(" ", 5) for line in lines)
    return [Mount(_unescape(f[4]), " ".join(f[:4])) for f in fields if len(f) > 5]


def within(folder: Path, mounts: Sequence[Mount]) -> frozenset[Mount]:
    """Those at the folder and below it."""
    real = os.path.realpath(folder)
    below = real.rstrip("/") + "/"
    return frozenset(m for m in mounts if m.at == real or m.at.startswith(below))


def _unescape(path: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found.group(1), 8)), path)
