"""Whether a release fits what is served here. Blocking: hashes weights. Knows no engine."""

from collections.abc import Sequence

from kb import chunking
from kb.manifest import Manifest
from kb.models import folder_of
from kb.prompt import PROMPT_VERSION
from kb.release import weights
from kb.settings import KbSettings


def misfits(manifest: Manifest, *, model: str, weights_in: str, kb: KbSettings) -> Sequence[str]:
    """Why a release cannot be served here, a phrase each; empty if it can.

    `model` as the settings name it; `weights_in` is the model's folder, or a hub id (of which what
    was downloaded counts); "" where weights are not there yet, or need no hashing again: then only
    names are compared.
    """
    found = []
    if manifest.prompt_version != PROMPT_VERSION:
        found.append(
            f"it was trained on prompt version {manifest.prompt_version}, and"
            f" {PROMPT_VERSION} is served"
        )
    if manifest.base.name != model:
        found.append(f"its base is {manifest.base.name}, and [engine] model is {model}")
    elif (
        manifest.base.files
        and weights_in
        and (folder := folder_of(weights_in))
        and not manifest.base.has(weights(folder))
    ):
        found.append(f"its base {model} has other weights than {model} here (SHA-256)")
    if manifest.embedder != kb.embedder_identity:
        found.append(
            f"it was trained with embedder {manifest.embedder}, and {kb.embedder_identity} is used"
        )
    cut, here = manifest.chunker, (kb.chunk_tokens, chunking.VERSION)
    if (cut.tokens, cut.version) != here:
        found.append(
            f"its passages were cut into {cut.tokens} tokens (chunker {cut.version}), and here into"
            f" {here[0]} (chunker {here[1]})"
        )
    return found
