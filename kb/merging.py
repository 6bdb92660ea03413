"""A release's adapter and its base -> a folder with whole weights, which any engine serves.

    python -m kb.merging HOME RELEASE BASE    (a process of its own: torch stays in memory for good)

Importing this loads neither torch nor peft. Knows nothing of engines.
"""

import json
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from kb.durable import sync, sync_tree
from kb.errors import BadData, ModelBroken, VademecumError
from kb.manifest import Manifest
from kb.release import ADAPTER, MODEL, folder, read

MARKER = "merged.json"
"""Written last: where it is, the folder is complete, and it says of what it was made."""
_PREFIX = "release-"
_COPIED = (".json", ".jinja", ".txt", ".model")  # tokenizer, chat template, generation defaults
_NOT_COPIED = ("config.json", "model.safetensors.index.json", "vademecum.json")


def model_of(home: Path, manifest: Manifest) -> Path:
    """Where the whole weights of a release are, or will be once they are merged."""
    if manifest.kind == "merged":
        return folder(home, manifest.id) / MODEL
    return home / "models" / f"{_PREFIX}{manifest.id}"


def is_merged(home: Path, manifest: Manifest) -> bool:
    """Whether the whole weights of a release are there, made of these very files."""
    if manifest.kind == "merged":
        return True
    try:
        made_of = json.loads((model_of(home, manifest) / MARKER).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return bool(made_of == _made_of(manifest))


def forget(home: Path, keep: set[str]) -> None:
    """Remove merged weights of all releases but `keep`; they can be made again."""
    for marker in (home / "models").glob(f"{_PREFIX}*/{MARKER}"):
        place = marker.parent
        if place.name.removeprefix(_PREFIX) in keep:
            continue
        if place.is_symlink():  # what it leads to is somebody's
            place.unlink()
        else:
            marker.unlink()  # first, so that half a folder never looks whole
            shutil.rmtree(place)


def merge(home: Path, manifest: Manifest, base: str) -> Path:
    """Make the whole weights of an adapter release, unless they are there. `base` is a folder or
    hub id. Beside, synced, renamed. Raises BadData, ModelBroken."""
    place = model_of(home, manifest)
    if is_merged(home, manifest):
        return place
    beside = place.with_name(f".{place.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        write(base, folder(home, manifest.id) / ADAPTER, beside)
        (beside / MARKER).write_text(json.dumps(_made_of(manifest)), encoding="utf-8")
        sync_tree(beside)
        shutil.rmtree(place, ignore_errors=True)
        beside.rename(place)
        sync(place.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return place


def _made_of(manifest: Manifest) -> dict[str, Any]:
    part = {path: sha for path, sha in manifest.files.items() if path.startswith(f"{ADAPTER}/")}
    return {"base": manifest.base.model_dump(), "adapter": part}


def write(base: str, adapter: Path, out: Path) -> None:
    """`out`, an existing folder, gets the merged weights in bfloat16, and the base's tokenizer and
    template. Raises BadData for an adapter of another base, ModelBroken."""
    import torch
    from peft import PeftModel
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        bare = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
        tuned = PeftModel.from_pretrained(bare, str(adapter))
        if not _changes_something(tuned):
            raise BadData("the adapter changes no weight of the base: it was made for another one")
        tuned.merge_and_unload(safe_merge=True).save_pretrained(out)
        copy_tokenizer(base, out)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelBroken(f"base and adapter cannot be merged: {error}") from error


def copy_tokenizer(base: str, out: Path) -> None:
    """Everything of a model but its weights and their configuration, as it is."""
    from huggingface_hub import snapshot_download

    source = Path(base) if Path(base).is_dir() else Path(snapshot_download(base))
    for file in source.iterdir():
        if file.is_file() and file.suffix in _COPIED and file.name not in _NOT_COPIED:
            shutil.copyfile(file, out / file.name)


def _changes_something(tuned: Any) -> bool:
    """An adapter whose names match nothing loads with a warning, and leaves the base as it was."""
    tuned_layers = (layer for layer in tuned.modules() if hasattr(layer, "get_delta_weight"))
    return any(bool(layer.get_delta_weight("default").any()) for layer in tuned_layers)


def main(arguments: list[str]) -> int:
    """Exit codes: 0 done, 1 failed, 3 bad data; the last line of standard error says why."""
    home, release, base = Path(arguments[0]), arguments[1], arguments[2]
    logging.basicConfig(format="%(message)s")
    os.nice(10)  # answers go first
    try:
        merge(home, read(folder(home, release)), base)
    except VademecumError as error:
        logging.error("%s", " ".join(str(error).split()))
        return 3 if isinstance(error, BadData) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
