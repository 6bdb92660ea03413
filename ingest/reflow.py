"""Pages of a PDF -> one text with the offset of each page. Pure.

A PDF knows lines, not paragraphs: a wrapped line is joined with the next, so that no sentence and
no Chinese word is cut at a line's end. Offsets are right by construction, because the text is
built page by page. Knows nothing of how lines were read.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence

_FULL = 0.75
"""A line at least this wide, beside the wide lines of its page, was wrapped."""
_STARTS = re.compile(
    r"[-*•◦▪–—·]\s|\(?[0-9０-９]{1,3}[.)、）]\s?\D|[(（][a-z0-9一二三四五六七八九十]{1,4}[)）]"
    r"|第[零〇一二三四五六七八九十百千0-9]+[章节編编篇条款]|(?:Article|Section|Chapter|Part)\s+\w+|§|#",
)
_ENDS = re.compile(r"[.!?:;。！？：；…][\"'”’」』）)\]]*$")
_HYPHEN = re.compile(r"[\x02\xad\ufffe]\s*$")  # how PDFium shows a hyphen made by wrapping
_WIDE = frozenset("WF")
_QUOTES = str.maketrans("‘’“”", "''\"\"")


def heading_key(line: str) -> str:
    """A line as headings are compared: quotes and white space are not told apart."""
    return " ".join(line.translate(_QUOTES).split())


def join_pages(pages: Sequence[str], headings: Mapping[str, int]) -> tuple[str, tuple[int, ...]]:
    """`headings` gives the level of the lines (see `heading_key`) that may be headings.

    Returns the text and, for each page, the offset at which it starts.
    """
    parts: list[str] = []
    starts: list[int] = []
    length = 0
    for page in pages:
        body = _page(page, headings)
        if body and length:
            parts.append("\n\n")
            length += 2
        starts.append(length)
        parts.append(body)
        length += len(body)
    return "".join(parts), tuple(starts)


def _page(page: str, headings: Mapping[str, int]) -> str:
    lines = [line.strip(" \t\u3000") for line in page.replace("\r\n", "\n").split("\n")]
    lines = [line for line in lines if line]
    if not lines:
        return ""
    widths = sorted(_width(line) for line in lines)
    full = _FULL * widths[int(0.8 * (len(widths) - 1))]
    out = [""]
    wrapped = False
    for line in lines:
        level = headings.get(heading_key(line), 0)
        if level and _is_heading(line, out[-1], wrapped):
            out += [f"{'#' * level} {line}", ""]
            wrapped = False
            continue
        if wrapped and not _STARTS.match(line):
            out[-1] = _join(out[-1], line)
        else:
            out.append(line)
        wrapped = _width(line) >= full or bool(_HYPHEN.search(line))
    return "\n".join(_HYPHEN.sub("", line) for line in out if line)


def _is_heading(line: str, before: str, wrapped: bool) -> bool:
    """A reader that judges by the size of letters takes halves of sentences for headings."""
    goes_on = wrapped and bool(before) and not _ENDS.search(before)
    return not goes_on and len(line) <= 100 and not _ENDS.search(line) and not line[0].islower()


def _join(before: str, line: str) -> str:
    if _HYPHEN.search(before):
        return _HYPHEN.sub("", before) + line
    tight = before.endswith("-") or (_is_wide(before[-1]) and _is_wide(line[0]))
    return before + line if tight else f"{before} {line}"


def _width(line: str) -> int:
    return sum(2 if _is_wide(c) else 1 for c in line)


def _is_wide(character: str) -> bool:
    # Hangul is wide too, but Korean puts spaces between words: where a line wraps is not known.
    return unicodedata.east_asian_width(character) in _WIDE and not "가" <= character <= "힣"
