"""What makes a row noise, each reason with a name. Pure; a reason says nothing of other rows.

Rules 5 and 6 of practice: runs of repeated words or characters, non-word sequences, mojibake, rows
that do not fit the base model. Thresholds are lenient: what is dropped is plainly broken.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from finetune.rows import Row
from kb.words import CJK

_WORD = re.compile(rf"[{CJK}]|[^\W_{CJK}]+(?:['’-][^\W_{CJK}]+)*")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
_MOJIBAKE = re.compile(
    # UTF-8 read as Latin-1 or Windows-1252 ("â€™", "Ã©"), GBK read from replacement marks.
    r"â€[\x80-\x9f™œ“”˜¦¢\"]|[ÃÂ][\x80-\xbf]|ï»¿|锟斤拷|烫烫烫|\ufffd|æ[\x80-\xbf]{2}"
)
_FOREIGN = re.compile(r"[^\x00-\x7f]{4,}")
_CHINESE = re.compile(f"[{CJK}]")
_CHARACTERS = re.compile(r"([^\W\d_])\1{9,}|([!?！？。，,])\2{9,}")
_PRINTED = re.compile(r"https?://\S+|[\w.+-]+@[\w.-]+|`[^`]*`")
_LONG = 50
"""Letters and digits in one run: longer than any word, and than most formulas."""
_DIGEST = re.compile(r"[0-9a-f]{64,128}|[0-9A-F]{64,128}")
_TEMPLATE = re.compile(
    r"<\|[a-z_]{2,20}\|>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>"
    r"|^\s*#{2,3} ?(?:Response|Instruction|Input|Human|Assistant|问题|回答) ?[:：]"
    r"|^(?:Human|Assistant): ",
    re.MULTILINE,
)
_UNFILLED = re.compile(r"\{\{ ?\w+ ?\}\}|^(?:USER|ASSISTANT): ", re.MULTILINE)
"""Fragments in what is learned; a form or a page about templates may be asked about."""
_MANNERISM = re.compile(
    r"\b(?:as an? (?:AI|artificial intelligence)\b(?: (?:language )?(?:model|assistant))?"
    r"|I(?:'m| am) (?:just |only )?an? (?:AI|large|artificial)"
    r"|my (?:training data|knowledge cutoff)"
    r"|I(?:'m| am) ChatGPT|(?:trained|developed|created|made) by OpenAI)"
    r"|作为一[个名款种](?:AI|人工智能|大型?语言)|我是一[个款](?:AI|人工智能|大型?语言)",
    re.IGNORECASE,
)


def control(row: Row) -> bool:
    return bool(_CONTROL.search(whole(row)))


def mojibake(row: Row) -> bool:
    text = _learned(row)
    return bool(_MOJIBAKE.search(text)) or any(map(_is_misread, _FOREIGN.findall(text)))


def _is_misread(run: str) -> bool:
    """Whether it is Chinese in UTF-8 that was read as Windows-1252, or as GBK: read back, most of
    it makes sense, which hardly any other text does."""
    for encoding in ("cp1252", "gb18030"):
        raw = run.encode(encoding, "ignore")
        chinese = len(_CHINESE.findall(raw.decode("utf-8", "ignore")))
        if chinese >= 3 and 3 * chinese >= 0.7 * len(raw):
            return True
    return False


def repeated_characters(row: Row) -> bool:
    return bool(_CHARACTERS.search(_learned(row)))


def repeated_words(row: Row) -> bool:
    """A word, or a phrase of up to five, said four times or more in a row, or a reply of a few
    words said over and over. Numbers tell apart what is said of them: "5 mg, 10 mg, 20 mg"."""
    said = [w.casefold() for w in _WORD.findall(_learned(row))]
    for size in range(1, 6):
        # A Chinese character is no word: "哈哈哈哈" is laughter.
        times = 4 if size > 1 else 6
        run = 0
        for at in range(size, len(said)):
            run = run + 1 if said[at] == said[at - size] else 0
            if run >= (times - 1) * size and not _are_numbers(said[at - size : at]):
                return True
    several = zip(said, said[1:], said[2:], strict=False)
    triples = Counter(triple for triple in several if not _are_numbers(triple))
    return len(said) >= 60 and max(triples.values(), default=0) > len(said) / 6


def _are_numbers(said: Sequence[str]) -> bool:
    """As in a column of a table."""
    return all(word.isdigit() for word in said)


def repeated_lines(row: Row) -> bool:
    lines = [line.strip() for line in _learned(row).split("\n") if len(line.strip()) > 10]
    _, most = Counter(lines).most_common(1)[0] if lines else ("", 0)
    return most >= 3 and most > 0.3 * len(lines)


def non_words(row: Row) -> bool:
    """Runs without spaces that are no word of any language, or hardly a letter in all of it."""
    text = _PRINTED.sub(" ", _learned(row))
    runs = [w for w in re.findall(r"[A-Za-z0-9+=_]+", text) if len(w) > _LONG]
    if any(not set(run) <= set("_=+") and not _DIGEST.fullmatch(run) for run in runs):
        return True
    visible = [c for c in text if not c.isspace()]
    letters = sum(c.isalnum() for c in visible)
    return len(visible) >= 40 and letters < 0.5 * len(visible)


def degenerate(row: Row) -> bool:
    """Nothing to learn from: no letter or digit, the question said back, a scrap of text."""
    if row.text:
        return len(row.text.strip()) < 40
    reply, asked = row.reply.strip(), row.prompt[-1].content.strip()
    if reply == (row.rejected or "").strip():
        return True
    return not any(c.isalnum() for c in reply) or reply.casefold() == asked.casefold()


def template(row: Row) -> bool:
    """Fragments of another model's template, or a placeholder that nobody filled in."""
    return bool(_TEMPLATE.search(_learned(row)) or _UNFILLED.search(row.reply or row.text))


def mannerism(row: Row) -> bool:
    """What another assistant says of itself."""
    return bool(_MANNERISM.search(row.reply))


REASONS: Mapping[str, Callable[[Row], bool]] = {
    "control characters": control,
    "mojibake": mojibake,
    "repeated characters": repeated_characters,
    "repeated words": repeated_words,
    "repeated lines": repeated_lines,
    "non-word sequences": non_words,
    "degenerate": degenerate,
    "template fragments": template,
    "another assistant's manner": mannerism,
}


def whole(row: Row) -> str:
    """Everything that a row says, but for the system's part, which is the house's own."""
    return f"{_learned(row)}\n{row.rejected or ''}".strip()


def _learned(row: Row) -> str:
    """The same without the rejected answer, of which a bad one teaches most."""
    said = [m.content for m in row.messages if m.role != "system"]
    return "\n".join([*said, row.text]).strip()
