"""Question + hits -> the messages that the model sees. Training and serving both call it.

Nothing that a document or a user wrote is trusted: text that looks like a chat template's control
token reaches the model as harmless characters. Knows nothing of the engine or of tokenizers.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kb.records import Hit
from kb.words import content_words, estimate_tokens, sentences, words

PROMPT_VERSION = 1
"""Raise it when the same question and hits would be rendered differently."""

SYSTEM = "You answer questions from the numbered references. Use only the references. Be brief."

REFUSAL = {
    "en": "The knowledge base holds no answer to this question.",
    "zh": "知识库中没有能够回答这个问题的内容。",
}
"""What is said where the references hold no answer: by the server without asking the model, and by
a model that was trained to. By language."""
SET_ASIDE = {"en": "Set aside: ", "zh": "不采用："}
"""How a first line begins that names the references an answer does not use."""
_NONE = {"en": "none", "zh": "无"}
_HEAD = "|".join(re.escape(head.strip()) for head in SET_ASIDE.values())
_ALL_USED = tuple(f"{SET_ASIDE[language]}{none}" for language, none in _NONE.items())
_WHOLE = rf"(?:{'|'.join(map(re.escape, _ALL_USED))})[ \t]*"
_MARK = r"[ \t]*\[\d{1,3}\]"
# The end of an answer that was cut off within the line is the line's end too.
_ASIDE = re.compile(
    rf"\s*(?:(?:{_HEAD})(?P<marks>(?:{_MARK})+)[ \t]*(?:\[\d{{0,3}}\Z)?|{_WHOLE})(?:\n\s*|\Z)"
)
_ASIDE_OPEN = re.compile(
    rf"\s*(?:(?:{_HEAD})(?:{_MARK})*[ \t]*(?:\[\d{{0,3}}|\n\s*)?|{_WHOLE}(?:\n\s*)?)"
)

_CONTROL = re.compile(
    r"<(?=\||/?s>|/?(?:bos|eos|pad|unk|mask|cls|sep|think|tool_call|tool_response)>"
    r"|(?:start|end)_of_(?:turn|image)>|<SYS>>|</SYS>>|｜"
    # StarCoder's, which SmolLM2 inherited.
    r"|(?:repo_?name|file_sep|filename|gh_stars|issue_\w+|jupyter_\w+|empty_output|fim_\w+)>)"
    r"|\[(?=/?(?:INST|THINK|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS"
    r"|TOOL_CONTENT|ARGS|IMG)\])",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Excerpt:
    """What of a hit stands in the prompt under `number`."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Quote:
    """A sentence of a hit: `hit.chunk.text[start:end]`."""

    hit: Hit
    start: int
    end: int
    score: float

    @property
    def text(self) -> str:
        return self.hit.chunk.text[self.start : self.end]


def messages(
    question: str, excerpts: Sequence[Excerpt], history: Sequence[dict[str, str]] = ()
) -> list[dict[str, str]]:
    """The chat messages: system, earlier turns, then references and question."""
    references = "\n".join(f"[{e.number}] {harmless(e.text)}" for e in excerpts)
    earlier = [{"role": m["role"], "content": harmless(m["content"])} for m in history]
    asked = f"References:\n\n{references}\n\nQuestion: {harmless(question)}"
    return [
        {"role": "system", "content": SYSTEM},
        *earlier,
        {"role": "user", "content": asked},
    ]


def excerpts(question: str, hits: Sequence[Hit], budget: int) -> list[Excerpt]:
    """What of the hits fits into `budget` estimated tokens.

    Whole passages while they fit. Where they do not, the sentences nearest to the question, in
    reading order: a small model with little room answers twice as often from the right sentences
    as from whole passages (docs/decisions/004-small-models.md).
    """
    if sum(estimate_tokens(h.chunk.text) for h in hits) <= budget:
        return [Excerpt(n, h.chunk.text) for n, h in enumerate(hits, 1)]
    chosen: list[Quote] = []
    room = budget
    # Passages of very short lines only (a table) have no sentence: then whole passages.
    whole = [Quote(h, 0, len(h.chunk.text), 0.0) for h in hits]
    for quote in nearest(question, hits) or whole:
        room -= estimate_tokens(f"{quote.text} ")
        if room < 0 and chosen:
            break
        chosen.append(quote)
    out = []
    for number, hit in enumerate(hits, 1):
        mine = sorted((q for q in chosen if q.hit is hit), key=lambda q: q.start)
        if mine:
            out.append(Excerpt(number, " ".join(q.text for q in mine)))
    return out


def nearest(question: str, hits: Sequence[Hit]) -> list[Quote]:
    """The sentences of the hits, the likeliest to answer the question first.

    By the share of the question's words, rarer ones counting more, and the rank of the passage.
    """
    asked = content_words(question)
    rarity = _rarity(asked, hits)
    total = sum(rarity.values()) or 1.0
    out = []
    for rank, hit in enumerate(hits):
        for start, end in sentences(hit.chunk.text):
            held = set(words(hit.chunk.text[start:end]))
            if len(held) < 3:
                continue
            overlap = sum(weight for word, weight in rarity.items() if word in held) / total
            out.append(Quote(hit, start, end, overlap - 0.1 * rank))
    return sorted(out, key=lambda quote: -quote.score)


def set_aside(numbers: Sequence[int], language: str) -> str:
    """The line in front of an answer that says which references it does not use (ChatLaw's
    self-suggestion), or that it uses all: with a line in every answer, a model's first word tells
    an answer from a refusal. A dozen tokens: it names numbers and no reasons."""
    marks = " ".join(f"[{n}]" for n in numbers)
    return f"{SET_ASIDE[language]}{marks or _NONE[language]}\n"


def split_aside(text: str) -> tuple[list[int], str]:
    """What `set_aside` put in front of an answer: its numbers, and the answer without that line.
    A text that does not begin with exactly such a line stays as it is."""
    line = _ASIDE.match(text)
    if line is None:
        return [], text
    return [int(n) for n in re.findall(r"\d+", line["marks"] or "")], text[line.end() :]


def may_set_aside(text: str) -> bool:
    """Whether a text that goes on may turn out to begin with such a line, or the line to go on."""
    begun = text.lstrip()
    return any(line.startswith(begun) for line in _ALL_USED) or bool(_ASIDE_OPEN.fullmatch(text))


def harmless(text: str) -> str:
    """`text` with every control token of the common chat templates broken by a space."""
    return _CONTROL.sub(lambda match: f"{match.group()} ", text)


def _rarity(asked: Sequence[str], hits: Sequence[Hit]) -> dict[str, float]:
    """A word that stands in every passage tells nothing about which sentence answers."""
    held = [set(words(hit.chunk.text)) for hit in hits]
    return {w: 1.0 / (1 + sum(w in words_ for words_ in held)) for w in asked}
