"""Text -> chunks: spans with character offsets and the headings above them. Pure.

A chunk never crosses a heading; a heading with nothing below it is a chunk of its own, so that it
can be found (slides, forms). Within a section, sentences are packed up to a size; a sentence is
cut only when it alone is larger. Articles of statutes (`第七条`, `Article 7`, `§ 7`) start a chunk
when the section does not fit into one.
"""

import re
from collections.abc import Iterator

from kb.records import Piece
from kb.words import estimate_tokens, sentences

VERSION = 2
"""Part of a knowledge base's identity: raise it when the same text would be cut differently.
2: a heading with nothing below it is a chunk."""

# Closing marks are left to `_plain`: matching them here would take cubic time on many blanks.
_HEADING = re.compile(r"^(#{1,6})[ \t]+(.*)$", re.MULTILINE)
_ARTICLE = re.compile(r"(?:第[零〇一二三四五六七八九十百千0-9]+条|Article\s+\d+|§\s*\d+)", re.I)
_SPACE = re.compile(r"\s*")
_MARKUP = re.compile(r"[*_`#\[\]\\]+")


def chunk(text: str, size: int) -> list[Piece]:
    """Pieces of at most `size` estimated tokens; `piece.text == text[start:end]`."""
    pieces = []
    for start, end, heading in _sections(text):
        for a, b in _pack(text, start, end, size):
            pieces.append(Piece(a, b, text[a:b], heading))
    return pieces


def first_heading(text: str) -> str:
    """The first heading of a Markdown text, without markup; empty if it has none."""
    found = _HEADING.search(text)
    return _plain(found.group(2)) if found else ""


def _sections(text: str) -> Iterator[tuple[int, int, str]]:
    """Bodies between headings, and headings without any, each with the path of those above it."""
    path: list[tuple[int, str]] = []
    last: re.Match[str] | None = None
    for match in _HEADING.finditer(text):
        level = len(match.group(1))
        yield _section(text, last, match.start(), level, path)
        path = [(n, h) for n, h in path if n < level] + [(level, _plain(match.group(2)))]
        last = match
    yield _section(text, last, len(text), 0, path)


def _section(
    text: str, heading: re.Match[str] | None, end: int, next_level: int, path: list[tuple[int, str]]
) -> tuple[int, int, str]:
    """What stands under a heading; the heading itself where that is nothing, not even another."""
    start = heading.end() if heading else 0
    bare = heading is not None and len(heading.group(1)) >= next_level and path[-1][1]
    if heading is not None and bare and not text[start:end].strip():
        return heading.start(2), heading.end(2), _join(path[:-1])
    return start, end, _join(path)


def _join(path: list[tuple[int, str]]) -> str:
    return " > ".join(heading for _, heading in path if heading)


def _plain(heading: str) -> str:
    return _MARKUP.sub("", heading).strip()


def _pack(text: str, start: int, end: int, size: int) -> Iterator[tuple[int, int]]:
    """Greedy packing of the sentences of text[start:end]."""
    open_at = open_to = -1
    tokens = 0
    for a, b in _units(text, start, end, size):
        # With what stands between two sentences: many blank lines count too.
        n = estimate_tokens(text[a if open_at < 0 else open_to : b])
        fits = tokens + n <= size and not (_ARTICLE.match(text, a) and tokens > size // 4)
        if open_at >= 0 and not fits:
            yield open_at, open_to
            open_at, tokens, n = -1, 0, estimate_tokens(text[a:b])
        if open_at < 0:
            open_at = a
        open_to = b
        tokens += n
    if open_at >= 0:
        yield open_at, open_to


def _units(text: str, start: int, end: int, size: int) -> Iterator[tuple[int, int]]:
    """Sentences, and the parts of those that are larger than a chunk."""
    for a, b in sentences(text[start:end]):
        a, b = a + start, b + start
        # Looking no further than `size` tokens can reach keeps this linear.
        while estimate_tokens(text[a : min(b, a + 4 * size + 1)]) > size:
            cut = _cut(text, a, b, size)
            yield a, cut
            space = _SPACE.match(text, cut, b)
            a = space.end() if space else cut
        if a < b:
            yield a, b


def _cut(text: str, a: int, b: int, size: int) -> int:
    """A place in text[a:b] with at most `size` tokens before it, at white space if it can."""
    low, high = a + 1, min(b, a + 4 * size)
    while low < high:
        middle = (low + high + 1) // 2
        if estimate_tokens(text[a:middle]) <= size:
            low = middle
        else:
            high = middle - 1
    space = max(text.rfind(" ", a + (low - a) // 2, low), text.rfind("，", a, low) + 1)
    return space if space > a else low
