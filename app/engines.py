"""Which engines should run: the one file in which server and supervisor meet.

    HOME/releases/engines.json
    {"engines": [{"release": "r1", "port": 8101, "model": "...", "manifest": SHA256}]}

The server declares; `vademecum up` starts what is missing, starts again what died and stops what is
no longer there, so either may be restarted at any time. Only the server writes the file while it
runs, `up` before it does. What died is counted in HOME/logs/engine-r1.ends, for who waits for it.
Knows nothing of processes.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from app.fit import misfits
from app.settings import EngineSettings
from kb import release
from kb.durable import replace
from kb.errors import BadData
from kb.manifest import BASE, Manifest
from kb.merging import model_of
from kb.models import Report
from kb.settings import KbSettings

FILE = "engines.json"


class Wanted(BaseModel):
    """An engine that should run on a port of this machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    release: str
    """BASE for the bare model."""
    port: int
    model: str = ""
    """A folder with whole weights; empty: what `[engine] model` names."""
    manifest: str = ""
    """SHA-256 of the release's, since another one may be made under the same id."""

    def is_of(self, manifest: Manifest | None) -> bool:
        """None is the base."""
        return (self.release, self.manifest) == _identity(manifest)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    engines: list[Wanted]


def read(home: Path) -> list[Wanted]:
    """Nothing where there is no file. Raises BadData."""
    try:
        text = (home / "releases" / FILE).read_text(encoding="utf-8")
        return _File.model_validate_json(text).engines
    except FileNotFoundError:
        return []
    except (ValidationError, UnicodeDecodeError) as error:
        raise BadData(f"releases/{FILE} cannot be read: {error}") from error


def write(home: Path, engines: Sequence[Wanted]) -> None:
    said = {"engines": [one.model_dump() for one in engines]}
    replace(home / "releases" / FILE, json.dumps(said, indent=2) + "\n")


def note_end(home: Path, engine: str) -> None:
    """Of an engine, by its name: it is being started again. A dot for each."""
    with _ends(home, engine).open("a", encoding="ascii") as file:
        file.write(".")


def ends(home: Path, engine: str) -> int:
    """How often it ended, since ever."""
    try:
        return _ends(home, engine).stat().st_size
    except FileNotFoundError:
        return 0


def _ends(home: Path, engine: str) -> Path:
    return home / "logs" / f"{engine}.ends"


def name(release: str) -> str:
    """What its process is called, and its log."""
    return "engine" if release == BASE else f"engine-{release}"


def own(home: Path, manifest: Manifest | None, port: int) -> Wanted:
    """An engine of its own for a release, with whole weights; None: for the base."""
    release, sha256 = _identity(manifest)
    model = str(model_of(home, manifest)) if manifest else ""
    return Wanted(release=release, port=port, model=model, manifest=sha256)


def _identity(manifest: Manifest | None) -> tuple[str, str]:
    if manifest is None:
        return BASE, ""
    return manifest.id, hashlib.sha256(manifest.model_dump_json().encode()).hexdigest()


def takes_adapters(settings: EngineSettings, *, cpu: bool) -> bool:
    """Whether the base's engine loads adapters while it runs.

    Not on a CPU: there a runtime adapter is several times slower than merged weights
    (docs/decisions/013-promotion.md).
    """
    if settings.runtime_adapters == "auto":
        return bool(settings.url) or not cpu
    return settings.runtime_adapters


def by_adapter(manifest: Manifest, settings: EngineSettings, *, cpu: bool) -> bool:
    """Whether a release is served so."""
    if manifest.adapter is None or not takes_adapters(settings, cpu=cpu):
        return False
    return bool(settings.url) or manifest.adapter.rank <= settings.max_adapter_rank


def at_start(
    home: Path, settings: EngineSettings, kb: KbSettings, report: Report
) -> Manifest | None:
    """The current release, to go on with, its files checked; None: the base, which answers, and
    `report` is told so, where the release cannot be served any more."""
    try:
        current = release.current(home)
        if current == BASE:
            return None
        manifest = release.read(release.folder(home, current), quick=True)
    except BadData as error:
        report(f"the base answers: {error}")
        return None
    # The base's weights were hashed when it was promoted: a start does not wait for that.
    if not (wrong := misfits(manifest, model=settings.model, weights_in="", kb=kb)):
        return manifest
    report(f"the base answers: release {current} cannot be served any more: {'; '.join(wrong)}")
    return None


def going_on(
    home: Path, settings: EngineSettings, kb: KbSettings, *, cpu: bool, report: Report
) -> Manifest | None:
    """`at_start` for a server, which finds engines running. A release that could not be served when
    they were started has none, even if it could be by now."""
    manifest = at_start(home, settings, kb, report)
    if manifest is None or settings.url or by_adapter(manifest, settings, cpu=cpu):
        return manifest
    if any(one.is_of(manifest) for one in read(home)):
        return manifest
    report(f"the base answers: no engine runs with release {manifest.id}; promote it to start one")
    return None


def own_at_start(
    home: Path, settings: EngineSettings, kb: KbSettings, *, cpu: bool, report: Report
) -> Manifest | None:
    """The release whose own engine a start begins with; None: the base's engine."""
    manifest = at_start(home, settings, kb, report)
    if manifest is None or by_adapter(manifest, settings, cpu=cpu):
        return None
    return manifest
