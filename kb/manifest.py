"""What a release says of itself: `release.json`, field by field. Pure; `kb.release` has the files.

{"format": 1, "id": "r1", "created": "2026-11-25T08:00:00Z", "kind": "adapter",
 "base": {"name": "bundled:smollm2-135m-instruct", "files": {"model.safetensors": SHA256}},
 "adapter": {"rank": 16, "alpha": 32, "targets": ["q_proj", ...]},
 "prompt_version": 1, "embedder": ..., "chunker": {"tokens": 160, "version": 2},
 "serving": {"evidence": 0.05, "context_tokens": 700, "quotes": 0},
 "data": [{"name", "licence", "rows", "sha256"}], "revision": ..., "metrics": {NAME: NUMBER},
 "gate": {"passed": true, "why": ...}, "files": {"adapter/adapter_config.json": SHA256, ...}}
"""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

FORMAT = 1
"""Raise it when an older program would misread a manifest."""
BASE = "base"
"""What is served without a release: the bare model of the settings. No release may be called so."""
_TAKEN = (BASE, "current", "vademecum")
_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

Kind = Literal["adapter", "merged"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def is_id(text: str) -> bool:
    """Whether a release may be called so."""
    return _ID.fullmatch(text) is not None and text not in _TAKEN


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Base(_Part):
    """The model that was tuned."""

    name: Annotated[str, Field(min_length=1)]
    """As `[engine] model` names it, `bundled:smollm2-135m-instruct` say."""
    files: dict[str, Sha256] = {}
    """Its weights (`weights`); empty where they were not at hand: then only the name is
    compared."""

    def has(self, here: Mapping[str, str]) -> bool:
        """Whether the weights here (file -> SHA-256) are its own; others may lie beside them."""
        return all(here.get(file) == sha for file, sha in self.files.items())


class Adapter(_Part):
    """A LoRA adapter's shape."""

    rank: Annotated[int, Field(ge=1)]
    alpha: Annotated[float, Field(gt=0)]
    targets: Annotated[tuple[str, ...], Field(min_length=1)]
    """Module names, as in peft's `target_modules`."""


class Chunker(_Part):
    """How documents were cut when training rows were made."""

    tokens: Annotated[int, Field(ge=1)]
    version: int


class Serving(_Part):
    """How the release wants to be served, as `[app]` spells it; settings made there win."""

    evidence: Annotated[float, Field(ge=0, le=1)]
    """Refuse without asking the model when the chance of an answer is below this."""
    context_tokens: Annotated[int, Field(ge=1)]
    """Room for references in the prompt."""
    quotes: Annotated[int, Field(ge=0, le=5)] = 0
    """Sentences of the passages that follow an answer, where it did not say the same."""


class Source(_Part):
    """A data set that training read."""

    name: Annotated[str, Field(min_length=1)]
    licence: Annotated[str, Field(min_length=1)]
    rows: Annotated[int, Field(ge=0)]
    sha256: Sha256


class Gate(_Part):
    """What the gate said, and why."""

    passed: bool
    why: Annotated[str, Field(min_length=1)]


class Manifest(_Part):
    """`release.json`. Everything but `files`, which `write` fills in, is its maker's."""

    format: int = FORMAT
    id: str
    """Lower-case letters, digits, `.`, `_`, `-`: the folder's name, and a model's for clients."""
    created: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
    """UTC."""
    kind: Kind
    base: Base
    adapter: Adapter | None = None
    """Of kind `adapter`."""
    prompt_version: int
    """`kb.prompt.PROMPT_VERSION` of the training rows."""
    embedder: str
    """`embedder_identity` of the settings that retrieved for the training rows."""
    chunker: Chunker
    serving: Serving
    data: tuple[Source, ...] = ()
    revision: str = ""
    """Of the code that trained."""
    metrics: dict[str, float] = {}
    gate: Gate
    files: dict[str, Sha256] = {}
    """Path below the folder (with `/`) -> SHA-256, of every file but the manifest."""

    @field_validator("id")
    @classmethod
    def _usable(cls, value: str) -> str:
        if not is_id(value):
            raise ValueError(
                "a release's id is up to 64 lower-case letters, digits, '.', '_' and '-', begins"
                f" with a letter or digit, and is none of {', '.join(_TAKEN)}"
            )
        return value

    @field_validator("files")
    @classmethod
    def _inside(cls, value: dict[str, str]) -> dict[str, str]:
        for path in value:
            parts = PurePosixPath(path)
            if parts.is_absolute() or ".." in parts.parts or "\\" in path or not parts.parts:
                raise ValueError(f"{path!r} leaves the folder of the release")
        return value

    @model_validator(mode="after")
    def _whole(self) -> "Manifest":
        if (self.kind == "adapter") != (self.adapter is not None):
            raise ValueError("`adapter` belongs to releases of kind adapter, and to no other")
        return self
