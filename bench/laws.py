"""The 334,828 passages of the statutes in laws_md.tar.gz, for benchmarks of size. Deterministic.

    python -m bench.laws --vectors FILE.npy

embeds them all (about an hour on two cores) and goes on where it stopped. VADEMECUM_DATA names the
folder of the archive. A statute is one document. It is cut at its articles (第N条), of which there
are 147,000, and an article of several paragraphs at those, never within one. A paragraph after an
article's first bears the article's number in its heading.
"""

import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.server import parser
from kb.embedding import Embedder, open_embedder
from kb.records import Piece
from kb.settings import KbSettings, load
from kb.store import to_embed

ARCHIVE = Path(os.environ.get("VADEMECUM_DATA", "../shared/data")) / "laws_md.tar.gz"
_ARTICLE = re.compile(
    r"[*\s]*(第[零〇一二三四五六七八九十百千万0-9]+条(?:之[一二三四五六七八九十]+)?)"
)
_INFO_ENDS = "<!-- INFO END -->"
_AT_ONCE = 1024
"""Passages embedded between two writes to disk, sorted by length so that little is padding."""


@dataclass(frozen=True, slots=True)
class Statute:
    """A document: `text[piece.start:piece.end] == piece.text` for each of its passages."""

    path: str
    title: str
    text: str
    pieces: tuple[Piece, ...]


def statutes(archive: Path = ARCHIVE) -> Iterator[Statute]:
    """By path. What has no paragraph is left out."""
    with tarfile.open(archive) as tar:
        texts = {
            member.name.removeprefix("./"): file.read().decode("utf-8")
            for member in tar
            if member.name.endswith(".md") and (file := tar.extractfile(member)) is not None
        }
    for path in sorted(texts):
        statute = _cut(path, texts[path].replace("\r\n", "\n"))
        if statute.pieces:
            yield statute


def passages(archive: Path = ARCHIVE) -> list[str]:
    """What the embedder reads of each passage, in the order of `statutes` and their pieces."""
    return [to_embed(s.title, p.heading, p.text) for s in statutes(archive) for p in s.pieces]


def _cut(path: str, text: str) -> Statute:
    title, chapter, article = PurePosixPath(path).stem, "", ""
    pieces: list[Piece] = []
    at = 0
    skipped = text.startswith("---\n")  # front matter
    for line in text.splitlines(keepends=True):
        start, at = at, at + len(line)
        said = line.strip()
        if said == "---" and start:
            skipped = False
        elif said == _INFO_ENDS:  # what stands before is when it was passed and changed
            pieces.clear()
        elif said.startswith("# "):
            title = said.removeprefix("# ").strip()
        elif said.startswith("#"):
            chapter, article = " ".join(said.lstrip("#").split()), ""
        elif len(said) > 1 and not skipped and not said.startswith("<!--"):
            found = _ARTICLE.match(said)
            begin = start + line.index(said)
            heading = chapter if found or not article else f"{chapter} {article}".strip()
            pieces.append(Piece(begin, begin + len(said), said, heading))
            article = found.group(1) if found else article
    return Statute(path, title, text, tuple(pieces))


def embed(texts: list[str], embedder: Embedder, file: Path) -> npt.NDArray[np.float16]:
    """float16 of shape (len(texts), dimensions) in `file`, made once; goes on where it stopped.

    A row of zeros is one that is still missing.
    """
    shape = (len(texts), embedder.dimensions)
    if not file.exists():
        np.lib.format.open_memmap(file, "w+", np.float16, shape).flush()  # type: ignore[no-untyped-call]
    out: np.memmap[Any, Any] = np.load(file, mmap_mode="r+")
    if out.shape != shape:
        raise SystemExit(f"{file} has the shape {out.shape}, not {shape}: it is of other passages")
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for start in range(0, len(order), _AT_ONCE):
        rows = order[start : start + _AT_ONCE]
        if out[rows].any(axis=1).all():
            continue
        out[rows] = embedder.passages([texts[i] for i in rows])
        out.flush()
        print(f"{start + len(rows):,} of {len(texts):,} embedded", flush=True)
    return out


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--vectors", type=Path, required=True)
    embedder = open_embedder(load().section("kb", KbSettings), load().home)
    embed(passages(), embedder, arguments.parse_args().vectors)


if __name__ == "__main__":
    main()
