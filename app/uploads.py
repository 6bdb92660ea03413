"""Uploaded bytes on disk: made durable under a name that is safe, in a folder that ingest follows.

    uploads/.incoming/ID/NAME    being written; swept away at the next start
    uploads/.files/ID/NAME       POST /v1/files, with its owner in .owner.json
    uploads/KB/ID/NAME           in a knowledge base; ingest takes the folder's name as the id

A folder is filled and synced in .incoming and then renamed, so that a half-written upload is never
seen and a reply never promises bytes that a power cut could take. Knows no ledger.
"""

import errno
import json
import os
import shutil
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from app.errors import BadRequest, UnknownFile, UnsupportedType
from kb.formats import is_document
from kb.ledger import new_file_id
from kb.records import FILE_ID

_OWNER = ".owner.json"
_LONGEST = 200  # bytes of a name; file systems take 255
_INCOMING, _FILES = ".incoming", ".files"


@dataclass(frozen=True, slots=True)
class Upload:
    """An uploaded file on disk. `owner` and `purpose` are known of those from POST /v1/files."""

    id: str
    path: Path
    owner: str = ""
    purpose: str = "assistants"

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    @property
    def created_at(self) -> int:
        return int(self.path.parent.stat().st_mtime)


class Uploads:
    """The folder `uploads` of a home. Blocking."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def sweep(self) -> None:
        """Throw away what an earlier process left half-written."""
        shutil.rmtree(self._root / _INCOMING, ignore_errors=True)

    def put(self, kb: str, name: str, source: BinaryIO) -> Upload:
        """Bytes into a knowledge base. Durable on return."""
        return self._land(kb, new_file_id(), name, lambda file: _copy(source, file))

    def stage(self, name: str, source: BinaryIO, owner: str, purpose: str) -> Upload:
        """Bytes that no knowledge base has yet. Durable on return."""
        about = {"owner": owner, "purpose": purpose}
        self._land(_FILES, file_id := new_file_id(), name, lambda f: _copy(source, f), about)
        return self.staged(file_id)

    def attach(self, staged: Upload, kb: str) -> Upload:
        """A staged file into a knowledge base; the same one again is left as it is."""
        known = self.find(kb, staged.id)
        return known or self._land(kb, staged.id, staged.path.name, lambda f: _link(staged.path, f))

    def staged(self, file_id: str) -> Upload:
        """Raises UnknownFile."""
        found = self.kept(file_id)
        if found is None:
            raise UnknownFile(f"there is no file {file_id!r}")
        return found

    def kept(self, file_id: str) -> Upload | None:
        """`staged`, or None."""
        found = self._in(_FILES, file_id)
        if found is None:
            return None
        about = json.loads((found.path.parent / _OWNER).read_bytes())
        return Upload(found.id, found.path, about["owner"], about["purpose"])

    def all_staged(self) -> list[Upload]:
        return [self.staged(file_id) for file_id in self.ids(_FILES)]

    def ids(self, kb: str) -> list[str]:
        """The ids of what lies in a knowledge base's folder of uploads."""
        folder = self._root / kb
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return sorted(name for name in names if FILE_ID.fullmatch(name))

    def of(self, kb: str) -> list[Upload]:
        """What lies in a knowledge base's folder of uploads."""
        return [u for file_id in self.ids(kb) if (u := self._in(kb, file_id)) is not None]

    def find(self, kb: str, file_id: str) -> Upload | None:
        return self._in(kb, file_id)

    def remove(self, kb: str, file_id: str) -> bool:
        """Take a file out of a knowledge base; False if it is not there."""
        if self._in(kb, file_id) is None:
            return False
        # Moved out in one step: ingest never meets a half-deleted folder.
        doomed = self._fresh(f"{file_id}.{os.urandom(4).hex()}")
        (self._root / kb / file_id).rename(doomed / file_id)
        _sync(self._root / kb)
        shutil.rmtree(doomed)
        return True

    def remove_staged(self, file_id: str) -> bool:
        return self.remove(_FILES, file_id)

    def _in(self, folder: str, file_id: str) -> Upload | None:
        # Ids come from clients and become paths: nothing that is no id gets any further.
        if not FILE_ID.fullmatch(file_id):
            return None
        try:
            inside = (self._root / folder / file_id).iterdir()
            names = [p.name for p in inside if not p.name.startswith(".")]
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Upload(file_id, self._root / folder / file_id / names[0]) if names else None

    def _fresh(self, name: str) -> Path:
        folder = self._root / _INCOMING / name
        folder.mkdir(parents=True)
        return folder

    def _land(
        self,
        into: str,
        file_id: str,
        name: str,
        write: Callable[[Path], None],
        about: dict[str, str] | None = None,
    ) -> Upload:
        beside = self._fresh(f"{file_id}.{os.urandom(4).hex()}")
        home = self._root / into
        try:
            write(beside / name)
            if about is not None:
                (beside / _OWNER).write_text(json.dumps(about), encoding="utf-8")
                _sync(beside / _OWNER)
            _sync(beside)
            home.mkdir(exist_ok=True)
            _move(beside, home / file_id)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        _sync(home)
        _sync(self._root)
        return Upload(file_id, home / file_id / name)


def safe_name(raw: str | None) -> str:
    """What a client calls a file -> a name that is safe on disk and in a page.

    Raises BadRequest if nothing is left, UnsupportedType if it is no document's name.
    """
    last = (raw or "").replace("\\", "/").rsplit("/", 1)[-1]
    # Control and formatting characters (C*) can hide a name's ending or break a line of a log.
    kept = "".join(c for c in last if unicodedata.category(c)[0] != "C")
    # Ingest leaves hidden files and editors' own (~$x.docx, #x#) alone, so none may be named so.
    name = unicodedata.normalize("NFC", kept).strip().lstrip(".~#$ ")
    if not name:
        raise BadRequest("the file has no name", "file")
    if not is_document(name):
        raise UnsupportedType(f"{name} is not of a type that can be read as a document")
    return _shortened(name)


def _shortened(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    room = _LONGEST - len(f"{dot}{suffix}".encode())
    return f"{stem.encode()[:room].decode('utf-8', 'ignore')}{dot}{suffix}"


def _copy(source: BinaryIO, target: Path) -> None:
    with target.open("xb") as file:
        shutil.copyfileobj(source, file, 2**20)
        file.flush()
        os.fsync(file.fileno())


def _link(source: Path, target: Path) -> None:
    """The same bytes under a second name; copied where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        with source.open("rb") as file:
            _copy(file, target)


def _move(folder: Path, target: Path) -> None:
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        shutil.rmtree(folder)  # somebody attached the same file at the same time


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
