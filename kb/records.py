"""The nouns of a knowledge base: frozen, without I/O."""

import re
from dataclasses import dataclass

FILE_ID = re.compile(r"file-[0-9a-f]{24}")


@dataclass(frozen=True, slots=True)
class Parsed:
    """A file turned into text. `pages` holds the offset at which each page starts, or nothing."""

    text: str
    title: str = ""
    pages: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """A span of a text as the chunker cuts it, before it is stored: `text == source[start:end]`."""

    start: int
    end: int
    text: str
    heading: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """A stored version of a file's text."""

    id: int
    file_id: str
    filename: str
    title: str
    text: str
    sha256: str
    pages: tuple[int, ...] = ()

    def page_at(self, offset: int) -> int | None:
        """The 1-based page that holds this character offset, None for formats without pages."""
        return page_at(self.pages, offset)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stored passage: `text` is `document.text[start:end]`."""

    id: int
    document_id: int
    start: int
    end: int
    text: str
    heading: str
    page: int | None


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage found for a query.

    `cosine` is the dense half's score: the cosine of query and passage, or what it would be if
    they were of one language (`kb.languages`); `lexical` the BM25 score, 0.0 where the lexical half
    did not list it; `coverage` the share of the query's content words that the passage (with its
    title and heading) holds, each word weighed by its rarity in the knowledge base.
    """

    chunk: Chunk
    file_id: str
    filename: str
    title: str
    document_sha256: str
    score: float
    cosine: float
    lexical: float
    coverage: float
    pages: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """The answer of a search: hits, best first, and the generation they were read at.

    `keywords` are the query's content words, rarest first; `background` the mean cosine of
    candidates that are related but far from best (ranks 21 to 40), None where there are fewer;
    `apart` the same of those in another language than the query, where there are some in its own.
    """

    hits: tuple[Hit, ...]
    generation: int
    keywords: tuple[str, ...] = ()
    background: float | None = None
    apart: float | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """What an index needs to know of one chunk: `vector` is float16 bytes, `context` the title and
    heading that stand in front of the text."""

    id: int
    context: str
    text: str
    vector: bytes


@dataclass(frozen=True, slots=True)
class Citation:
    """A checked pointer from an answer to a place in a document.

    `index` is the offset of the marker in the answer; `start` and `end` are characters of the
    document's extracted text, and `quote` is exactly that slice. `attributed` tells that the
    server, not the model, set the marker.
    """

    number: int
    index: int
    file_id: str
    filename: str
    page: int | None
    start: int
    end: int
    quote: str
    verified: bool
    document_sha256: str
    attributed: bool = False


@dataclass(frozen=True, slots=True)
class Changes:
    """What an index takes over to reach `generation`: entries to add, chunk ids to forget.

    `fresh`: it is so far behind that what to forget is no longer known. It forgets everything, and
    `added` is all there is. `embedder` made all living vectors.
    """

    generation: int
    added: tuple[Entry, ...] = ()
    removed: tuple[int, ...] = ()
    fresh: bool = False
    embedder: str = ""


def page_at(pages: tuple[int, ...], offset: int) -> int | None:
    """The 1-based page whose start is the last one at or before `offset`."""
    if not pages:
        return None
    return max(1, sum(1 for start in pages if start <= offset))


def shown_name(path: str) -> str:
    """A ledger path as people see it: an upload lies in a folder named after its id, which tells
    them nothing."""
    head, _, rest = path.partition("/")
    return rest if rest and FILE_ID.fullmatch(head) else path
