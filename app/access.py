"""What a caller may see, asked of the server's parts in one place. Blocking.

What is hidden and what is missing are told in the same words: nobody can find out which it is.
"""

from app.auth import Caller
from app.errors import UnknownFile
from app.parts import Parts
from app.shelf import Shelved, find
from app.uploads import Upload
from kb.catalog import Listed
from kb.search import KnowledgeBase


def store(at: Parts, store_id: str, caller: Caller) -> tuple[KnowledgeBase, Listed]:
    """A knowledge base, opened. Raises UnknownKnowledgeBase, StoreBroken."""
    listed = at.kb.find(store_id, caller.sees)
    return at.kb.get(listed.id), listed


def staged(at: Parts, file_id: str, caller: Caller) -> Upload:
    """A file from POST /v1/files, of this caller. Raises UnknownFile."""
    found = at.uploads.staged(file_id)
    if not owns(caller, found):
        raise UnknownFile(f"there is no file {file_id!r}")
    return found


def shelved(at: Parts, file_id: str, caller: Caller) -> list[tuple[Shelved, KnowledgeBase, Listed]]:
    """The places of a file in the knowledge bases that this caller sees."""
    out = []
    listed = {one.id: one for one in at.kb.listed(caller.sees)}
    for kb in at.kb.all(caller.sees):
        try:
            out.append((find(kb, at.uploads, file_id), kb, listed[kb.id]))
        except UnknownFile:
            continue
    return out


def owns(caller: Caller, upload: Upload) -> bool:
    return upload.owner == caller.name or (caller.may("admin") and not caller.kbs)
