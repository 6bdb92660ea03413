"""Text -> words for lexical search and for measuring support: Chinese segmented, English stemmed.

Pure; knows nothing of indexes. The same function serves documents and queries, so that the two
always meet.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

import rjieba
import Stemmer

from kb import articles

VERSION = 2
"""Raise it when the same text gives other words. 2: articles' numbers."""

CJK = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_RUN = re.compile(rf"[{CJK}]+|§[0-9a-z.-]*[0-9a-z]|[^\W_{CJK}]+(?:(?<=[0-9])[.,][0-9]+)*")
_CJK = re.compile(f"[{CJK}]")
_BREAK = re.compile(r"""[。！？；]+[”’」』）]*|(?<![.!?])[.!?]+["'”’)\]]*(?=\s|$)|\n""")
# The lookbehind keeps a long row of dots (a table of contents) from being tried at each dot.
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:dr|mr|mrs|ms|prof|no|art|sec|vs|e\.g|i\.e|cf|[a-z])\.$", re.I
)
_STEMMER = Stemmer.Stemmer("english")

STOPWORDS = frozenset(
    # A literal of 200 quoted words would be harder to read.
    """a about above after again all also am an and any are as at be because been before being
    below between both but by can could did do does doing down during each few for from further
    had has have having he her here hers him his how i if in into is it its itself just let me
    more most my no nor not of off on once only or other our ours out over own please same shall
    she should so some such tell than that the their theirs them then there these they this those
    through to too under until up upon us very was we were what when where which while who whom
    whose why will with would you your yours
    的 了 和 是 在 有 与 及 或 等 吗 呢 吧 啊 么 我 你 他 她 它 们 我们 你们 他们 这 那 哪 哪个 哪些
    什么 怎么 怎样 如何 为什么 多少 几 谁 请问 请 应 应当 可以 能 能否 是否 需要 会 要 就 都 也 还
    对 为 以 于 被 把 从 到 由 向 给 让 则 其 之 所 而 但 如果 一个 多久 多长 时候 何时 哪里 哪儿
    """.split()
)


def words(text: str) -> list[str]:
    """All words in order: lower case, width-normalised, English stemmed, Chinese segmented.

    Chinese compounds come with their parts (`cut_for_search`), so a query for a part finds the
    whole. Decimals stay one word (`2.5`). The number of an article is one word in both languages
    (`第三十三条` is `§33`; `Article 33` is `articl`, `33`, `§33`).
    """
    out: list[str] = []
    for match in _RUN.finditer(articles.marked(unicodedata.normalize("NFKC", text).lower())):
        run = match.group()
        if _CJK.match(run):
            out.extend(rjieba.cut_for_search(run))
        else:
            out.append(_stem(run))
    return out


def content_words(text: str) -> list[str]:
    """The words that carry meaning, each once, in order of first appearance."""
    return list(dict.fromkeys(w for w in words(text) if w not in _STOP))


def sentences(text: str) -> list[tuple[int, int]]:
    """Trimmed spans of the sentences of a text; Chinese and English marks and line ends end one."""
    spans = []
    start = 0
    for match in _BREAK.finditer(text):
        if _goes_on(text, match):
            continue
        spans.append((start, match.end()))
        start = match.end()
    spans.append((start, len(text)))
    return [span for span in (_trim(text, *span) for span in spans) if span[0] < span[1]]


def estimate_tokens(text: str) -> int:
    """A guess of a subword tokenizer's count: 4 Latin characters or 1 Chinese one a token."""
    cjk = len(_CJK.findall(text))
    return cjk + (len(text) - cjk + 3) // 4


def is_chinese(text: str) -> bool:
    """Whether most letters of a text are Chinese characters (one weighs as much as two letters)."""
    cjk = len(_CJK.findall(text))
    letters = sum(1 for c in text if c.isalpha())
    return cjk > 0 and 3 * cjk >= letters


def support(claim: Iterable[str], evidence: Iterable[str]) -> float:
    """The share of the claim's words that the evidence holds; digits weigh three words each."""
    held = set(evidence)
    total = hit = 0.0
    for word in claim:
        weight = 3.0 if any(c.isdigit() for c in word) else 1.0
        total += weight
        hit += weight * (word in held)
    return hit / total if total else 0.0


def _goes_on(text: str, mark: re.Match[str]) -> bool:
    """Whether a full stop ends only an abbreviation (`Dr. Smith`, `8 a.m. on Monday`)."""
    if not mark.group().startswith("."):
        return False
    following = text[mark.end() : mark.end() + 4].lstrip(" ")[:1]
    return following.islower() or bool(
        _ABBREVIATION.search(text[max(0, mark.start() - 7) : mark.start() + 1])
    )


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    raw = text[start:end]
    return start + len(raw) - len(raw.lstrip()), end - len(raw) + len(raw.rstrip())


@lru_cache(maxsize=65_536)
def _stem(word: str) -> str:
    return _STEMMER.stemWord(word) if word.isascii() else word


_STOP = STOPWORDS | {_stem(w) for w in STOPWORDS}
