"""Whether a release fits what is served here. Blocking: hashes weights. Knows no engine."""

from collections.abc import Sequence
from pathlib import Path

from kb.manifest import Manifest
from kb.prompt import PROMPT_VERSION
from kb.release import weights


def misfits(manifest: Manifest, *, model: str, weights_in: str, embedder: str) -> Sequence[str]:
    """Why a release cannot be served here, a phrase each; empty if it can.

    `model` and `embedder` as the settings name them; `weights_in` is the model's folder (a hub id,
    and "" where they are not there yet, are compared by name only).
    """
    found = []
    if manifest.prompt_version != PROMPT_VERSION:
        found.append(
            f"it was trained on prompt version {manifest.prompt_version}, and"
            f" {PROMPT_VERSION} is served"
        )
    if manifest.base.name != model:
        found.append(f"its base is {manifest.base.name}, and [engine] model is {model}")
    elif manifest.base.files and weights_in and Path(weights_in).is_dir():
        here = weights(Path(weights_in))
        if here != manifest.base.files:
            found.append(f"its base {model} has other weights than {model} here (SHA-256)")
    if manifest.embedder != embedder:
        found.append(f"it was trained with embedder {manifest.embedder}, and {embedder} is used")
    return found
