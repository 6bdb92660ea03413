"""Numbers of articles as people write them -> one word, the same in every style. Pure.

`第三十三条`, `第33条`, `Article 33`, `Art. 33`, `Section 33` and `§ 33` name one thing. Cut into
words they share nothing, or digits that stand everywhere.
"""

import re

_DIGITS = {c: i for i, c in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_UNITS = {"十": 10, "百": 100, "千": 1000}
_NUMERAL = "".join((*_DIGITS, *_UNITS))
_ARTICLE = re.compile(
    rf"第\s?([{_NUMERAL}]{{1,9}}|[0-9]{{1,6}})\s?条(?:\s?之([{_NUMERAL}]{{1,4}}|[0-9]{{1,3}}))?"
    r"|(?:\b(?:articles?|art|sections?|sec)\b\.?\s?|§+\s?)([0-9]{1,6}[a-z]?(?:\.[0-9]{1,6})*)\b"
)


def marked(text: str) -> str:
    """A lower-case, NFKC-normalised text in which every article's number stands as `§33`.

    Chinese ones are replaced; in English the words stay, since a passage may have the bare number.
    `第一百二十条之一` becomes `§120-1`, `Section 4.2` gets `§4.2`.
    """
    return _ARTICLE.sub(_marked, text)


def _marked(match: re.Match[str]) -> str:
    main, inserted, western = match.groups()
    if western:
        return f"{match.group().strip('§')} §{western} "
    return f" §{number(main)}-{number(inserted)} " if inserted else f" §{number(main)} "


def number(numeral: str) -> int:
    """`三十三`, `一百零五`, `二〇` (digit by digit) or `33` -> its value."""
    if numeral.isdecimal():
        return int(numeral)
    if not _UNITS.keys() & set(numeral):
        return int("".join(str(_DIGITS[c]) for c in numeral))
    total = digit = 0
    for c in numeral:
        if c in _UNITS:
            total += (digit or 1) * _UNITS[c]
            digit = 0
        else:
            digit = _DIGITS[c]
    return total + digit
