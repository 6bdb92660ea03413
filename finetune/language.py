"""Text -> the language it is written in, by script and by the commonest words. Pure.

Enough to keep Chinese rows out of an English set and German ones out of either; a text too short
or too technical to tell gives nothing, and stays.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping

from kb.words import is_chinese

_WORD = re.compile(r"[^\W\d_]+")
_FEW = 8  # letters of a text that says nothing about its language
_SCRIPTS: Mapping[str, str] = {
    "CJK": "zh",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "HANGUL": "ko",
    "CYRILLIC": "ru",
    "ARABIC": "ar",
    "HEBREW": "he",
    "GREEK": "el",
    "THAI": "th",
    "DEVANAGARI": "hi",
}
_COMMON: Mapping[str, frozenset[str]] = {
    name: frozenset(listed.split())
    for name, listed in {
        "en": "the of and to in is that for it as was with be by on not he his this are or at from"
        " have an they which you were her all she there would their we has been if what when how"
        " can who do does should your about",
        "de": "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als"
        " auch es an werden aus er hat dass sie nach wird bei einer um am sind noch wie wurde oder",
        "fr": "de la le et les des en un du une que est pour qui dans a par plus pas au sur ne se"
        " ce il sont avec son aux ou mais comme nous cette été ses je vous elle",
        "es": "de la que el en y a los del se las por un para con no una su al es lo como más pero"
        " sus le ya o este sí porque esta entre cuando muy sin sobre también me",
        "it": "di che è e la il un a per in una mi sono ho non ti lo ha con le si da no ma cosa"
        " come più del della gli nel alla questo anche dei delle",
        "pt": "de a o que e do da em um para é com não uma os no se na por mais as dos como mas foi"
        " ao ele das tem à seu sua ou ser quando muito há nos já está",
        "nl": "de van een en het in is dat op te zijn met voor niet aan er om ook als dan maar bij"
        " of uit nog worden door naar heeft hebben deze",
    }.items()
}


def language(text: str) -> str:
    """An ISO 639-1 code, or nothing where it cannot be told."""
    scripts: Counter[str] = Counter()
    for character in text[:4000]:
        if character.isalpha():
            name = unicodedata.name(character, "").split(" ", 1)[0]
            # One Chinese character weighs as much as two letters.
            scripts[_SCRIPTS.get(name, "latin")] += 2 if name == "CJK" else 1
    total = sum(scripts.values())
    if total < _FEW:
        return ""
    if scripts["ja"] > 0.1 * total:  # kanji are CJK too
        return "ja"
    script, count = scripts.most_common(1)[0]
    if count < 0.5 * total:
        return ""
    return _latin(text[:4000]) if script == "latin" else script


def of_question(asked: str, beside: str) -> str:
    """The language of a question, told with what answers it `beside`: a few words alone tell too
    little. English where neither tells."""
    if is_chinese(asked):
        return "zh"
    told = language(f"{asked}\n{beside}")
    return told if told and told != "zh" else "en"


def _latin(text: str) -> str:
    found = [word.casefold() for word in _WORD.findall(text)]
    shares = {name: sum(w in common for w in found) for name, common in _COMMON.items()}
    (best, hits), (_, second) = Counter(shares).most_common(2)
    # A list of names holds the commonest words of no language; two that are near are not told.
    return best if hits >= 2 and hits >= 0.05 * len(found) and hits > 1.3 * second else ""
