"""Releases for tests: a manifest with everything in it, and an adapter of no weight."""

from pathlib import Path
from typing import Any

from kb import release
from kb.manifest import Manifest
from kb.prompt import PROMPT_VERSION

BASE = "bundled:smollm2-135m-instruct"


def manifest(name: str = "r1", **more: Any) -> Manifest:
    said: dict[str, Any] = {
        "id": name,
        "created": "2026-11-25T08:00:00Z",
        "kind": "adapter",
        "base": {"name": BASE},
        "adapter": {"rank": 8, "alpha": 16, "targets": ["q_proj", "v_proj"]},
        "prompt_version": PROMPT_VERSION,
        "embedder": "fake-64",
        "chunker": {"tokens": 160, "version": 2},
        "serving": {"evidence": 0.05, "context_tokens": 700, "quotes": 0},
        "data": [{"name": "sample", "licence": "CC0", "rows": 3, "sha256": "0" * 64}],
        "metrics": {"clean_correct": 0.5},
        "gate": {"passed": True, "why": "better on all three kinds"},
    }
    return Manifest.model_validate(said | more)


def store(home: Path, name: str = "r1", **more: Any) -> Manifest:
    """A release on disk, as `finetune release` leaves it."""
    run = home / "runs" / name
    run.mkdir(parents=True, exist_ok=True)
    (run / "adapter_config.json").write_text("{}")
    (run / "adapter_model.safetensors").write_bytes(name.encode())
    one = manifest(name, **more)
    part = release.ADAPTER if one.kind == "adapter" else release.MODEL
    return release.write(home, one, {part: run})
