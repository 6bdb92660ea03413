"""How long a file takes from closed to found, and from deleted to gone.

    python -m bench.freshness [--json] [--files 20] [--bulk 3000] [--alone [--pace 50]]

Writes one-page text files into the watched folder, one at a time, and searches until each is found;
then deletes them. Times include the search that finds them, and searching goes on all the while.
`--bulk` first drops so many other files there and measures while they are being taken in; they are
deleted afterwards. `--alone` starts ingest and server on a fresh home instead of asking the running
server; with `--pace N` their embedder is a stand-in that gives N passages a second.
"""

import random
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from bench.alone import alone
from bench.pace import paced
from bench.server import Target, parser, percentiles, show, target
from kb.catalog import DEFAULT, Catalog, Listed
from kb.layout import DATABASE
from kb.ledger import Ledger
from kb.store import Store

SENTENCE = (
    "The {word} procedure, step {n}, is signed by the head of ward {m} before {h}:15 o'clock. "
)
PAGE = 30  # sentences, about 2,500 characters
_PAUSE = 0.5
"""Seconds at most between files, so that they do not come in step with ingest."""


def page(word: str) -> str:
    """A page of text that holds a word no other page holds."""
    return "".join(SENTENCE.format(word=word, n=n, m=n * 3, h=8 + n % 10) for n in range(PAGE))


def names(client: httpx.Client, at: Target, store: str, word: str) -> set[str]:
    """The files that the server finds for a word."""
    reply = client.post(
        f"{at.url}/v1/vector_stores/{store}/search",
        json={"query": f"the {word} procedure", "max_num_results": 10},
    )
    reply.raise_for_status()
    found = reply.json()["data"]
    return {hit["filename"] for hit in found if any(word in c["text"] for c in hit["content"])}


def until(
    client: httpx.Client, at: Target, store: str, file: Path, word: str, there: bool
) -> float:
    """Seconds until the file is found (or gone), asking again and again."""
    begun = time.perf_counter()
    while (file.name in names(client, at, store, word)) is not there:
        if time.perf_counter() - begun > 60:
            raise SystemExit(f"{file.name} was not {'found' if there else 'gone'} in 60 s")
        time.sleep(0.01)
    return time.perf_counter() - begun


def load(folder: Path, files: int) -> None:
    """Drop a bulk load: pages in a folder of their own, all different."""
    folder.mkdir()
    for n in range(files):
        (folder / f"{n}.txt").write_text(page(f"b{secrets.token_hex(5)}"), encoding="utf-8")


def waiting(one: Listed) -> int:
    """Files that ingest has not come to yet."""
    store = Store(one.folder / DATABASE, readonly=True)
    try:
        return Ledger(store).counts().get("in_progress", 0)
    finally:
        store.close()


def measure(at: Target, files: int, bulk: int) -> dict[str, Any]:
    """Percentiles in milliseconds, and how much of the bulk load was still waiting at the end."""
    one = Catalog(at.configuration.home).get(DEFAULT)
    folder = Path(one.watched[0])
    load_folder = folder / f"bench-{secrets.token_hex(4)}"
    found, gone = [], []
    try:
        if bulk:
            load(load_folder, bulk)
            time.sleep(2)  # the load is known, and being taken in
        with httpx.Client(timeout=60) as client:
            for _ in range(files):
                word = f"q{secrets.token_hex(5)}"
                file = folder / f"bench-{word}.txt"
                time.sleep(random.uniform(0, _PAUSE))
                try:
                    file.write_text(page(word), encoding="utf-8")
                    found.append(until(client, at, one.id, file, word, there=True))
                finally:
                    file.unlink(missing_ok=True)
                gone.append(until(client, at, one.id, file, word, there=False))
        left = waiting(one)
    finally:
        shutil.rmtree(load_folder, ignore_errors=True)
    return {
        "found_ms": percentiles(found),
        "gone_ms": percentiles(gone),
        "files": files,
        "bulk": bulk,
        "bulk_left": left,
    }


@contextmanager
def server(by_itself: bool, pace: float) -> Iterator[Target]:
    """The server to measure: the running one, or one of our own."""
    if not by_itself:
        yield target()
    elif not pace:
        with alone() as at:
            yield at
    else:
        with (
            paced(pace) as url,
            alone({"VADEMECUM_KB__EMBEDDER": "paced", "VADEMECUM_KB__EMBEDDER_URL": url}) as at,
        ):
            yield at


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--files", type=int, default=20)
    arguments.add_argument("--bulk", type=int, default=0, help="files of a load that runs beside")
    arguments.add_argument("--alone", action="store_true", help="on a fresh home, by itself")
    arguments.add_argument("--pace", type=float, default=0, help="passages a second, pretended")
    options = arguments.parse_args()
    if options.pace and not options.alone:
        arguments.error("--pace goes with --alone")
    with server(options.alone, options.pace) as at:
        result = measure(at, options.files, options.bulk)
    if options.bulk and not result["bulk_left"]:
        raise SystemExit("the load had ended before the last file was measured: take a larger one")
    rows = [
        {"from": "closed to found", **result["found_ms"]},
        {"from": "deleted to gone", **result["gone_ms"]},
    ]
    show(rows, result, options.json)


if __name__ == "__main__":
    main()
