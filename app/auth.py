"""Keys: who may do what, and which knowledge bases they may see. Knows nothing of HTTP.

A key is 32 random bytes, shown once; only its SHA-256 is stored. A slow password hash would
protect nothing here: it makes guessing of *weak* secrets costly, and 256 random bits cannot be
guessed at any speed.
"""

import fcntl
import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from kb.catalog import Listed
from kb.errors import AlreadyExists, BadConfiguration, BadData

Scope = Literal["chat", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""Each one may do all that the ones before it may."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `kbs` are names or ids of the knowledge bases they are bound to; empty: all."""

    name: str
    scope: Scope
    kbs: tuple[str, ...] = ()

    def may(self, scope: Scope) -> bool:
        return SCOPES.index(self.scope) >= SCOPES.index(scope)

    def sees(self, kb: Listed) -> bool:
        return not self.kbs or kb.name in self.kbs or kb.id in self.kbs


OWNER = Caller("", "admin")
"""Whoever sits at this machine, while no key exists."""


@dataclass(frozen=True, slots=True)
class Key:
    """A stored key: everything but the key itself."""

    name: str
    scope: Scope
    kbs: tuple[str, ...]
    created_at: int
    sha256: str


class Keys:
    """The keys in `file` (JSON, readable by its owner only). Several processes may use it: a
    change is seen by the next `caller`. A missing file means that no key exists; a broken one
    raises BadConfiguration, and lets nobody in."""

    def __init__(self, file: Path, clock: Callable[[], float] = time.time) -> None:
        self._file = file
        self._clock = clock
        self._seen: tuple[int, int, int] | None = None
        self._keys: tuple[Key, ...] = ()

    def list(self) -> tuple[Key, ...]:
        """All keys, oldest first."""
        try:
            found = self._file.stat()
        except FileNotFoundError:
            return ()
        version = (found.st_ino, found.st_mtime_ns, found.st_size)
        if version != self._seen:
            self._keys = self._read()
            self._seen = version
        return self._keys

    def caller(self, token: str) -> Caller | None:
        """Whose key this is; None if it is nobody's."""
        digest = _digest(token)
        mine = None
        # Every key is compared, in constant time: how long it takes tells nothing.
        for key in self.list():
            if hmac.compare_digest(key.sha256, digest):
                mine = Caller(key.name, key.scope, key.kbs)
        return mine

    def create(self, name: str, scope: Scope, kbs: Sequence[str] = ()) -> str:
        """Make a key and return it; it is never shown again. Raises BadData, AlreadyExists."""
        if scope not in SCOPES:
            raise BadData(f"{scope!r} is no scope: {', '.join(SCOPES)}")
        if not name.strip() or not name.isprintable() or len(name) > 64:
            raise BadData("a key's name is 1 to 64 printable characters")
        token = f"vk-{secrets.token_urlsafe(32)}"
        with self._locked():
            keys = self.list()
            if any(key.name == name for key in keys):
                raise AlreadyExists(f"key {name!r} exists already")
            key = Key(name, scope, tuple(kbs), int(self._clock()), _digest(token))
            self._write([*keys, key])
        return token

    def revoke(self, name: str) -> Key:
        """From now on the key opens nothing. Raises BadData if there is none of this name."""
        with self._locked():
            keys = self.list()
            gone = next((key for key in keys if key.name == name), None)
            if gone is None:
                raise BadData(f"there is no key {name!r}")
            self._write([key for key in keys if key is not gone])
        return gone

    def _read(self) -> tuple[Key, ...]:
        try:
            rows = json.loads(self._file.read_bytes())["keys"]
            return tuple(Key(**{**row, "kbs": tuple(row["kbs"])}) for row in rows)
        except (ValueError, KeyError, TypeError) as error:
            raise BadConfiguration(f"{self._file.name} is damaged: {error}") from error

    def _write(self, keys: Sequence[Key]) -> None:
        beside = self._file.with_name(f".{self._file.name}.new")
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"keys": [asdict(key) for key in keys]}, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        beside.rename(self._file)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(
            self._file.with_name(f".{self._file.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
