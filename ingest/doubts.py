"""Which files are read again because this machine can read more than when they were read.

What failed may no longer fail; pages that were images are read where OCR has come, or more of its
languages. Looks at all of that only when the means of reading have changed, at the start of a
worker, and only writes down that such files are not known: the sweep that follows does the rest.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from itertools import pairwise

from ingest import scans
from ingest.parse import means
from ingest.settings import IngestSettings
from kb.ledger import Ledger
from kb.store import Store

log = logging.getLogger(__name__)

_KEY = "means"


def doubt(
    store: Store, ledger: Ledger, settings: IngestSettings, environ: Mapping[str, str]
) -> None:
    """Call before a sweep. Old passages of the files answer until they have been read again."""
    now, before = means(settings, environ), store.meta(_KEY)
    if now == before:
        return
    # Whoever takes OCR away, or one of its languages, keeps what was read with it.
    scanned = list(_partly_unread(store)) if _languages(now) - _languages(before) else []
    with store.transaction():
        ledger.doubt_failed()
        ledger.doubt(scanned)
        store.set_meta(_KEY, now)
    if scanned:
        log.info("%d files with pages that are images are read again, with OCR", len(scanned))


def _languages(means: str | None) -> set[str]:
    """Those that scanned pages are read in; none without OCR."""
    return set(json.loads(means)["ocr"]["languages"].split("+")) - {""} if means else set()


def _partly_unread(store: Store) -> Iterator[str]:
    """The ids of files of whose pages one holds hardly a letter (an empty one too; nobody wrote
    down why). One document at a time, to stay small."""
    sql = "SELECT id FROM documents WHERE dead_seq IS NULL AND pages <> '[]' ORDER BY id"
    for found in store.rows(sql):
        sql = "SELECT file_id, text, pages FROM documents WHERE id = ?"
        (row,) = store.rows(sql, (found["id"],))
        ends = [*json.loads(row["pages"]), len(row["text"])]
        if scans.images([row["text"][start:end] for start, end in pairwise(ends)]):
            yield str(row["file_id"])
