"""Merges a release's adapter with its base in a child process: torch never enters the server."""

import asyncio
import logging
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path

from app.errors import PromotionFailed
from kb.manifest import Manifest
from kb.models import locate

log = logging.getLogger(__name__)
BAD_DATA = 3


async def merge(home: Path, model: str, manifest: Manifest) -> None:
    """Run `python -m kb.merging` for a release on `model`, as the settings name it. Raises
    PromotionFailed; a child that is waited for in vain is killed."""
    base = await asyncio.to_thread(locate, model, home)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kb.merging", str(home), manifest.id, base,
        stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE,
        env=os.environ | {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"},
    )  # fmt: skip
    try:
        _, said = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
    if child.returncode != 0:
        lines = said.decode("utf-8", errors="replace").strip().splitlines() or ["nothing"]
        log.error("merging %s failed (exit %s): %s", manifest.id, child.returncode, lines[-1])
        why = lines[-1] if child.returncode == BAD_DATA else "the server's log says why"
        raise PromotionFailed(f"{manifest.id} could not be merged with its base: {why}")
