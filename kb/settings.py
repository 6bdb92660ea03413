"""One TOML file and the environment -> frozen settings objects, a section a room.

Knows the names of all sections so that a misspelt one is refused, but not their keys: each
room describes its own with a `Section`. Nothing here is global; entry points call `load` once
and hand the results down.
"""

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kb.errors import BadConfiguration

PREFIX = "VADEMECUM_"
SECTIONS = ("kb", "ingest", "engine", "app")


class Section(BaseModel):
    """A frozen group of settings; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


S = TypeVar("S", bound=Section)


class KbSettings(Section):
    """How documents are cut, embedded and searched."""

    embedder: Annotated[str, Field(min_length=1)] = "bundled:multilingual-e5-small"
    """`bundled:NAME`, a local folder, or a hub id."""
    embedder_url: str = ""
    """Base URL of an OpenAI-compatible /v1/embeddings to use instead of local weights."""
    embedder_key: str = ""
    """Bearer key for `embedder_url`."""
    chunk_tokens: Annotated[int, Field(ge=32, le=480)] = 160
    """Upper size of a chunk, in estimated tokens (the embedder reads 512 at most)."""
    candidates: Annotated[int, Field(ge=10, le=1000)] = 64
    """How many candidates each half of the hybrid search contributes."""
    dense_weight: Annotated[float, Field(ge=0, le=1000)] = 7.0
    """Weight of the cosines beside the words (`kb.fusion`)."""

    @property
    def embedder_identity(self) -> str:
        """The `name` that the embedder of these settings has, without loading it."""
        if self.embedder.startswith("fake:"):
            return f"fake-{self.embedder.removeprefix('fake:')}"
        return self.embedder


@dataclass(frozen=True, slots=True)
class Configuration:
    """What the file and the environment said, before each room reads its section."""

    home: Path
    tables: Mapping[str, Mapping[str, Any]]
    source: str

    def section(self, name: str, kind: type[S]) -> S:
        """Validate one section. Raises BadConfiguration with the key and the nearest right one."""
        try:
            return kind.model_validate(dict(self.tables.get(name, {})))
        except ValidationError as error:
            raise BadConfiguration(_explain(name, kind, error, self.source)) from error


def load(environ: Mapping[str, str] | None = None, folder: Path | None = None) -> Configuration:
    """Read `VADEMECUM_CONFIG` or `./vademecum.toml` (may be absent), then the environment over it.

    `VADEMECUM_HOME` (default `./data`) is where state lives; `VADEMECUM_<SECTION>__<KEY>`
    overrides a key. Raises BadConfiguration.
    """
    environ = os.environ if environ is None else environ
    folder = Path.cwd() if folder is None else folder
    named = environ.get(f"{PREFIX}CONFIG")
    file = folder / (named or "vademecum.toml")
    if named and not file.is_file():
        raise BadConfiguration(f"VADEMECUM_CONFIG names {named}, and there is no such file")
    tables = _read_toml(file) if file.is_file() else {}
    home = environ.get(f"{PREFIX}HOME") or str(tables.pop("home", "") or "data")
    tables.pop("home", None)
    _refuse_unknown(tables, SECTIONS, f"{file.name}: unknown section")
    for name, value in _overrides(environ):
        section, key = name
        tables.setdefault(section, {})[key] = value
    return Configuration((folder / Path(home).expanduser()).resolve(), tables, file.name)


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfiguration(f"{file.name} is not valid TOML: {error}") from error
    for name, table in tables.items():
        if name != "home" and not isinstance(table, dict):
            raise BadConfiguration(
                f"{file.name}: {name} stands outside any section; {nearest(name, SECTIONS)}"
            )
    return tables


def _overrides(environ: Mapping[str, str]) -> Iterable[tuple[tuple[str, str], str]]:
    for name, value in environ.items():
        head, separator, key = name.removeprefix(PREFIX).partition("__")
        if not name.startswith(PREFIX) or not separator:
            continue
        section = head.lower()
        _refuse_unknown([section], SECTIONS, f"environment variable {name}: unknown section")
        yield (section, key.lower()), value


def _refuse_unknown(names: Iterable[str], known: Iterable[str], what: str) -> None:
    for name in names:
        if name not in known:
            raise BadConfiguration(f"{what} [{name}]; {nearest(name, known)}")


def _explain(section: str, kind: type[Section], error: ValidationError, source: str) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        where = f"{source} or environment: [{section}] {key}"
        if problem["type"] == "extra_forbidden":
            lines.append(f"{where}: unknown key; {nearest(key, kind.model_fields)}")
        else:
            lines.append(f"{where} = {problem['input']!r}: {problem['msg']}")
    return "\n".join(lines)


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name: the nearest known one, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
