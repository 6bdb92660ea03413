"""Bytes -> text of plain files: finds the encoding, cleans what no reader should see. Pure.

Knows nothing of formats; a file that is no text in any encoding gives None.
"""

import codecs
import re

from charset_normalizer import from_bytes

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16: its mark begins with the same bytes
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
_NOT_ASCII = re.compile(rb"[\x80-\xff]")
_COMMON = frozenset((*range(0xA1, 0xA4), *range(0xB0, 0xD8)))
"""Lead bytes of GB 2312's punctuation and of its first level: the 3,755 most frequent."""
_SAMPLE = 256 * 1024
"""Bytes that decide about the encoding; a detector is too slow for all of a large file."""
_LONG = 64
"""Characters from which Korean bytes can be told from Chinese ones: both are valid GB18030."""


def decode(raw: bytes) -> str | None:
    """The text of a file, or None if these bytes are no text."""
    for mark, marked in _BOMS:
        if raw.startswith(mark):
            return raw.decode(marked, errors="replace")
    if b"\0" not in raw:
        strict = _try(raw, "utf-8")
        if strict is not None:
            return None if _is_binary(strict[:_SAMPLE]) else strict
        # A UTF-8 file with a torn character somewhere is still UTF-8.
        lenient = raw.decode("utf-8", errors="replace")
        torn = lenient.count("\ufffd")
        if 20 * torn < sum(1 for c in lenient if c > "\x7f"):
            return lenient
    name = _detect(_sample(raw))
    return None if name is None else raw.decode(name, errors="replace")


def clean(text: str) -> str:
    """Line ends become `\\n`; byte order mark and control characters go; nothing else changes."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROLS.sub("", text)


def _sample(raw: bytes) -> bytes:
    """The part that decides: where the letters beyond ASCII are, with what stands before them."""
    first = None if b"\0" in raw else _NOT_ASCII.search(raw)  # with NULs, every byte may be a half
    start = max(0, first.start() - _SAMPLE // 2) if first else 0
    return raw[start : start + _SAMPLE]


def _detect(sample: bytes) -> str | None:
    best = from_bytes(sample).best()
    name = best.encoding if best is not None else None
    # Detectors need a paragraph to know Chinese; a short note is Korean or Big5 to them. Its
    # bytes tell more: nearly all Chinese prose is in the first level of GB 2312.
    korean = name in {"cp949", "euc_kr", "johab"}
    chinese = _common_chinese(sample)
    if chinese and not (korean and chinese >= _LONG):
        return "gb18030"
    if name is None or _is_binary(sample.decode(name, errors="replace")):
        return None
    return name


def _common_chinese(sample: bytes) -> int:
    """How many characters a GB 2312 text holds, 0 if the bytes are no such text."""
    try:
        # The sample may end inside a character.
        text = codecs.getincrementaldecoder("gb18030")().decode(sample)
    except UnicodeDecodeError:
        return 0
    pairs = [c.encode("gb18030") for c in text if c > "\x7f"]
    common = sum(1 for p in pairs if len(p) == 2 and p[1] >= 0xA1 and p[0] in _COMMON)
    is_text = not _CONTROLS.search(text) and common >= 0.75 * len(pairs)
    return len(pairs) if is_text else 0


def _is_binary(text: str) -> bool:
    """Bytes that merely happen to decode hold many controls; a log with colours holds some."""
    return len(_CONTROLS.findall(text)) > 0.05 * len(text)


def _try(raw: bytes, name: str) -> str | None:
    try:
        return raw.decode(name)
    except UnicodeDecodeError:
        return None
