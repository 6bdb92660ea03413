"""A release: model, prompt, knowledge and proof that were trained, measured and served together.

    HOME/releases/ID/release.json    the manifest (`kb.manifest`), written last: where it is, all is
    HOME/releases/ID/adapter/        kind `adapter`: peft's adapter_config.json and weights
    HOME/releases/ID/model/          kind `merged`: a whole model folder, tokenizer included
    HOME/releases/ID/...             whatever else belongs to it, a report say
    HOME/releases/current            the release that is served, and below it those before it

`write` makes such a folder from what training left behind (`finetune release` calls it), `read`
checks every hash of one before it is served. Knows files and hashes; nothing of training, engines
or HTTP, and imports no torch.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from kb.durable import replace, sync, sync_tree
from kb.errors import AlreadyExists, BadData
from kb.manifest import BASE, FORMAT, Manifest, is_id

MANIFEST = "release.json"
ADAPTER = "adapter"
MODEL = "model"
_WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")


@dataclass(frozen=True, slots=True)
class Stored:
    """A folder below `releases/`: its manifest, or what is wrong with it."""

    id: str
    manifest: Manifest | None
    problem: str = ""


def folder(home: Path, release: str) -> Path:
    """Where a release lives. Raises BadData for an id that none may have."""
    if not is_id(release):
        raise BadData(f"{release!r} is no id of a release")
    return home / "releases" / release


def write(home: Path, manifest: Manifest, contents: Mapping[str, Path]) -> Manifest:
    """Make `home/releases/ID` of `contents` (name in the release -> file or folder to copy).

    Copied beside, hashed, synced, manifest last, then renamed: a crash leaves no half release.
    Returns the manifest with its `files`. Raises AlreadyExists, and BadData where a source or the
    part that the kind asks for is missing.
    """
    place = folder(home, manifest.id)
    if place.exists():
        raise AlreadyExists(f"there is a release {manifest.id!r} already")
    beside = place.with_name(f".{manifest.id}.new")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        for name, source in contents.items():
            _copy(source, beside / name)
        whole = manifest.model_copy(update={"files": hashes(beside)})
        _must_have_part(whole)
        sync_tree(beside)
        replace(beside / MANIFEST, whole.model_dump_json(indent=2) + "\n")
        beside.rename(place)
        sync(place.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return read(place)


def read(place: Path, *, quick: bool = False) -> Manifest:
    """The manifest of a release's folder, after every file of it was hashed and found as it says.

    Raises BadData naming the file: missing, changed, not listed, a link, one that cannot be read.
    `quick`: whole weights have to be there and are not hashed, which takes minutes for a large
    model.
    """
    manifest = peek(place)
    there = {path.relative_to(place).as_posix() for path in _files(place)}
    if missing := sorted(manifest.files.keys() - there):
        raise BadData(f"release {manifest.id}: {missing[0]} is missing")
    if unlisted := sorted(there - manifest.files.keys()):
        raise BadData(f"release {manifest.id}: {unlisted[0]} is not in its manifest")
    for path, expected in manifest.files.items():
        if quick and path.startswith(f"{MODEL}/"):
            continue
        try:
            found = sha256(place / path)
        except OSError as error:
            raise BadData(
                f"release {manifest.id}: {path} cannot be read: {error.strerror}"
            ) from error
        if found != expected:
            raise BadData(f"release {manifest.id}: {path} is not what was released (SHA-256)")
    return manifest


def peek(place: Path) -> Manifest:
    """The manifest alone, no file checked. Raises BadData."""
    try:
        text = (place / MANIFEST).read_text(encoding="utf-8")
        said = json.loads(text)
    except FileNotFoundError as error:
        raise BadData(f"release {place.name}: {MANIFEST} is missing") from error
    except (OSError, ValueError) as error:
        raise BadData(f"release {place.name}: {MANIFEST} cannot be read: {error}") from error
    made = said.get("format") if isinstance(said, dict) else None
    if isinstance(made, int) and made > FORMAT:
        raise BadData(
            f"release {place.name}: {MANIFEST} has format {made}, newer than this program"
            f" (it reads up to {FORMAT})"
        )
    try:
        manifest = Manifest.model_validate(said)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise BadData(f"release {place.name}: {MANIFEST}: {key}: {first['msg']}") from error
    if manifest.id != place.name:
        raise BadData(f"release {place.name}: {MANIFEST} is that of {manifest.id}")
    _must_have_part(manifest)
    return manifest


def listed(home: Path) -> list[Stored]:
    """Every `releases/*/release.json`, oldest first; those that cannot be read with the reason."""
    found = []
    for path in sorted((home / "releases").glob(f"[!.]*/{MANIFEST}")):
        try:
            found.append(Stored(path.parent.name, peek(path.parent)))
        except BadData as error:
            found.append(Stored(path.parent.name, None, str(error)))
    return sorted(found, key=lambda one: (one.manifest.created if one.manifest else "", one.id))


def succession(home: Path) -> list[str]:
    """What is served, then what was before it, latest first: ids, or BASE. Never empty.

    Raises BadData where `releases/current` holds something else.
    """
    try:
        text = (home / "releases" / "current").read_text(encoding="utf-8")
    except FileNotFoundError:
        return [BASE]
    ids = text.split()
    for one in ids:
        if one != BASE and not is_id(one):
            raise BadData(f"releases/current: {one!r} is no id of a release")
    return ids or [BASE]


def is_chosen(home: Path) -> bool:
    """Whether it was ever said what is served."""
    return (home / "releases" / "current").exists()


def current(home: Path) -> str:
    """The id of the release that is served; BASE without one."""
    return succession(home)[0]


def succeed(home: Path, ids: Sequence[str]) -> None:
    """Make `ids` the succession, in one step."""
    replace(home / "releases" / "current", "".join(f"{one}\n" for one in ids))


def weights(model: Path) -> dict[str, str]:
    """Name -> SHA-256 of a model folder's weights, for `Base.files`."""
    found = sorted(file for pattern in _WEIGHTS for file in model.glob(pattern))
    return {file.name: sha256(file) for file in found}


def hashes(place: Path) -> dict[str, str]:
    """Path below a folder -> SHA-256, of every file but a manifest and hidden ones. Raises BadData
    where one is a link."""
    return {path.relative_to(place).as_posix(): sha256(path) for path in sorted(_files(place))}


def sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _must_have_part(manifest: Manifest) -> None:
    part = ADAPTER if manifest.kind == "adapter" else MODEL
    if not any(path.startswith(f"{part}/") for path in manifest.files):
        raise BadData(f"release {manifest.id}: kind {manifest.kind} needs a folder {part}/")


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, copy_function=shutil.copyfile)
    elif source.is_file():
        shutil.copyfile(source, target)
    else:
        raise BadData(f"there is no {source} to release")


def _files(place: Path) -> list[Path]:
    """Every file but the manifest and hidden ones. A link could change what was released."""
    found = []
    for path in place.rglob("*"):
        relative = path.relative_to(place)
        if path.is_symlink():
            raise BadData(f"release {place.name}: {relative.as_posix()} is a link")
        hidden = any(part.startswith(".") for part in relative.parts)
        if path.is_file() and not hidden and relative.as_posix() != MANIFEST:
            found.append(path)
    return found
