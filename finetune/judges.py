"""Items + a model -> one number an item for each thing that is measured. More is always better,
but for what is only told.

Every measure keeps its items' order, so that two models' numbers are paired. Knows no statistics.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from finetune.engines import Asked, Engine, Messages
from finetune.items import MISSED, Choice, Grounding, Maths
from kb import prompt
from kb.judging import Judged, judge
from kb.records import Chunk, Hit

Purpose = Literal["field", "part", "general", "told"]
"""`field`: must become better. `part` of it, and `general`: must not become worse. `told` only."""

MATHS_TOKENS = 256
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_HOW = "\nGive the final number after ####."


@dataclass(frozen=True, slots=True)
class Measure:
    """Numbers of one thing measured, an item each. `log`: they are log-likelihoods a token."""

    ability: str
    name: str
    group: str
    purpose: Purpose
    values: tuple[float, ...]
    log: bool = False

    @property
    def label(self) -> str:
        return " ".join(part for part in (self.ability, self.group, self.name) if part)


@dataclass(frozen=True, slots=True)
class Answer:
    """What was asked and said, for people to read; `right` as the measures count it."""

    ability: str
    group: str
    question: str
    said: str
    wanted: str
    right: bool


Result = tuple[list[Measure], list[Answer]]


def hits(item: Grounding) -> list[Hit]:
    """The passages as the retriever would hand them on, in their order."""
    return [
        Hit(
            chunk=Chunk(n, n, 0, len(p.text), p.text, "", None),
            file_id=p.id,
            filename=p.id,
            title=p.title,
            document_sha256="",
            score=1.0 - n / 100,
            cosine=0.0,
            lexical=0.0,
            coverage=0.0,
        )
        for n, p in enumerate(item.passages, 1)
    ]


def asked_with(item: Grounding, context_tokens: int) -> Messages:
    """The messages that the server would send for this question and these passages."""
    shown = prompt.excerpts(item.question, hits(item), context_tokens)
    return prompt.messages(item.question, shown)


def grounding(
    engine: Engine,
    items: Sequence[Grounding],
    context_tokens: int,
    max_tokens: int,
    ability: str = "grounding",
) -> Result:
    """Answers from passages: right over all, and by kind what was right, refused and cited. Where
    the retriever missed the answer, what was said is told and counts for nothing."""
    prompts = [asked_with(item, context_tokens) for item in items]
    said = engine.generate(prompts, max_tokens)
    judged = [_judged(item, text) for item, text in zip(items, said, strict=True)]
    right = [_right(item, j) for item, j in zip(items, judged, strict=True)]
    counted = [r for i, r in zip(items, right, strict=True) if i.group != MISSED]
    measures = [Measure(ability, "right", "", "field", _numbers(counted))]
    for group, chosen in _groups(items).items():
        some = [items[n] for n in chosen], [judged[n] for n in chosen]
        measures += _of_group(ability, group, *some)
    answers = [
        Answer(ability, i.group, i.question, s, _wanted(i), r)
        for i, s, r in zip(items, said, right, strict=True)
    ]
    return measures, answers


def closed_book(
    engine: Engine,
    items: Sequence[Grounding],
    max_tokens: int,
    ability: str = "without retrieval",
) -> Result:
    """The same questions without passages, those that have an answer: what the model knows by
    itself."""
    known = [item for item in items if item.answers]
    said = engine.generate([[_user(i.question)] for i in known], max_tokens)
    right = [judge(s, i.answers, (), 0).correct for i, s in zip(known, said, strict=True)]
    answers = [
        Answer(ability, i.group, i.question, s, " | ".join(i.answers), r)
        for i, s, r in zip(known, said, right, strict=True)
    ]
    return [Measure(ability, "right", "", "told", _numbers(right))], answers


def choice(engine: Engine, items: Sequence[Choice]) -> Result:
    """The likeliest choice for its length in bytes, as text, not as a letter: small models cannot
    use letters (lm-evaluation-harness' acc_norm over the cloze form)."""
    asked = [
        Asked(f"Question: {i.question.strip()}\nAnswer:", tuple(f" {c.strip()}" for c in i.choices))
        for i in items
    ]
    right = []
    answers = []
    for item, group, scores in zip(items, asked, engine.score(asked), strict=True):
        by_length = [
            score.logprob / len(text.encode())
            for score, text in zip(scores, group.continuations, strict=True)
        ]
        best = by_length.index(max(by_length))
        right.append(best == item.answer)
        said, wanted = item.choices[best], item.choices[item.answer]
        answers.append(Answer("choice", "", item.question, said, wanted, right[-1]))
    return [Measure("choice", "right", "", "general", _numbers(right))], answers


def maths(engine: Engine, items: Sequence[Maths]) -> Result:
    """The number after `####`, or the last one, is the right one."""
    said = engine.generate([[_user(i.question + _HOW)] for i in items], MATHS_TOKENS)
    wanted = [i.answer.rsplit("####", 1)[1].strip() for i in items]
    right = [_number(s) == _number(f"#### {w}") for s, w in zip(said, wanted, strict=True)]
    answers = [
        Answer("maths", "", i.question, s, w, r)
        for i, s, w, r in zip(items, said, wanted, right, strict=True)
    ]
    return [Measure("maths", "right", "", "general", _numbers(right))], answers


def text(engine: Engine, texts: Sequence[str]) -> Result:
    """Log-likelihood a token of each text; `exp` of minus its mean is the perplexity."""
    scores = engine.score([Asked("", (one,)) for one in texts])
    values = tuple(s.logprob / max(1, s.tokens) for (s,) in scores)
    return [Measure("text", "log-likelihood", "", "general", values, log=True)], []


def _of_group(
    ability: str, group: str, items: Sequence[Grounding], judged: Sequence[Judged]
) -> list[Measure]:
    def measure(name: str, purpose: Purpose, of: Callable[[Judged], bool]) -> Measure:
        return Measure(ability, name, group, purpose, _numbers([of(j) for j in judged]))

    if items[0].group == MISSED:
        return [
            measure("correct", "told", lambda j: j.correct),
            measure("refused", "told", lambda j: j.refused),
        ]
    if not items[0].answerable:
        return [
            measure("refused", "part", lambda j: j.refused),
            measure("cited", "told", lambda j: j.cited),
        ]
    return [
        measure("correct", "part", lambda j: j.correct),
        measure("refused", "told", lambda j: j.refused),
        measure("cited", "told", lambda j: j.cited),
        measure("cited the right passage", "told", lambda j: j.cited_gold),
    ]


def _groups(items: Sequence[Grounding]) -> dict[str, list[int]]:
    several = len({i.language for i in items}) > 1
    found: dict[str, list[int]] = {}
    for n, item in enumerate(items):
        name = f"{item.language} {item.group}" if several else item.group
        found.setdefault(name, []).append(n)
    return found


def _judged(item: Grounding, said: str) -> Judged:
    numbers = {n for n, p in enumerate(item.passages, 1) if p.id in item.gold}
    return judge(said, item.answers, numbers, len(item.passages))


def _right(item: Grounding, judged: Judged) -> bool:
    return judged.correct if _has_answer(item) else judged.refused


def _wanted(item: Grounding) -> str:
    return " | ".join(item.answers) if _has_answer(item) else "(to refuse)"


def _has_answer(item: Grounding) -> bool:
    return item.answerable or item.group == MISSED


def _number(text: str) -> str:
    after = text.rsplit("####", 1)[-1] if "####" in text else text
    found = _NUMBER.findall(after)
    if not found:
        return ""
    # After the mark the first number counts, in prose the last.
    number: str = (found[0] if "####" in text else found[-1]).replace(",", "")
    return number.rstrip("0").rstrip(".") if "." in number else number


def _numbers(flags: Sequence[bool]) -> tuple[float, ...]:
    return tuple(map(float, flags))


def _user(content: str) -> dict[str, str]:
    return {"role": "user", "content": prompt.harmless(content)}
