"""Files that are whole or absent after a crash: written beside, synced, renamed."""

import os
from pathlib import Path


def replace(file: Path, text: str) -> None:
    """Make `text` the content of `file` in one step; its folder is made at need."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.new")
    with beside.open("w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    beside.replace(file)
    sync(file.parent)


def sync_tree(folder: Path) -> None:
    """Make everything below durable, and readable for other services (safetensors writes 0600)."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o644)
        sync(path)
    sync(folder)


def sync(path: Path) -> None:
    """Make a file's content, or a folder's entries, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
