"""How long a file takes from closed to found, and from deleted to gone, on the running server.

    python -m bench.freshness [--json] [--files 20]

Writes one-page text files into the watched folder, one at a time, and searches until each is found;
then deletes them. Times include the search that finds them.
"""

import secrets
import time
from pathlib import Path

import httpx

from bench.server import Target, parser, percentiles, show, target
from kb.catalog import DEFAULT, Catalog

SENTENCE = (
    "The {word} procedure, step {n}, is signed by the head of ward {m} before {h}:15 o'clock. "
)
PAGE = 30  # sentences, about 2,500 characters


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


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--files", type=int, default=20)
    options = arguments.parse_args()
    at = target()
    one = Catalog(at.configuration.home).get(DEFAULT)
    folder = Path(one.watched[0])
    found, gone = [], []
    with httpx.Client(timeout=60) as client:
        for _ in range(options.files):
            word = f"q{secrets.token_hex(5)}"
            file = folder / f"bench-{word}.txt"
            try:
                file.write_text(page(word), encoding="utf-8")
                found.append(until(client, at, one.id, file, word, there=True))
            finally:
                file.unlink(missing_ok=True)
            gone.append(until(client, at, one.id, file, word, there=False))
    rows = [
        {"from": "closed to found", **percentiles(found)},
        {"from": "deleted to gone", **percentiles(gone)},
    ]
    result = {"found_ms": percentiles(found), "gone_ms": percentiles(gone), "files": options.files}
    show(rows, result, options.json)


if __name__ == "__main__":
    main()
