"""Rows from a knowledge base: the serving retriever's hits in the exact serving prompt.

A row shows the gold passage among the retriever's own wrong hits and answers from it; a row whose
gold passage was left out refuses. What cannot be said for certain becomes no row, and is counted.
Knows nothing of where questions come from.
"""

import random
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field

from finetune import answers
from finetune.clean import Dropped
from finetune.data_settings import Knowledge
from finetune.language import of_question
from finetune.questions import Question, passage
from finetune.rows import Message, Origin, Role, Row
from kb import prompt
from kb.records import Found, Hit
from kb.search import KnowledgeBase
from kb.store import Store
from kb.words import content_words, is_chinese

SEARCHED = 24
"""Hits that gold and distractors are drawn from; serving shows the first eight."""
_BY_RANK = 0.5
"""Share of rows whose hits stand in the retriever's order, as they do when serving. In the others
gold stands anywhere: it is the first hit of most questions, and `[1]` would be learned by heart."""
_COVERED = 0.85
"""Share of a question's words in a hit from which it may well answer; see `kb.records.Hit`."""
_SAME = 0.6
"""Share of a wrong hit's sentences' words in the answer's from which it may well answer too."""
_TRIES = 3
"""Draws of hits a row: many show what an earlier one showed."""

Shown = tuple[tuple[Hit, prompt.Excerpt], ...]
"""The hits that find room in a prompt, and what of each stands there."""


@dataclass(frozen=True, slots=True)
class Style:
    """How rows are made; see `finetune.data_settings.Knowledge`."""

    context_tokens: int
    copies: int = 1
    distractors: int = 2
    refusals: float = 0.2
    set_aside: bool = False
    cues: Mapping[str, str] = field(default_factory=dict)
    role: Role = "domain"
    licence: str = ""
    seed: int = 0

    @classmethod
    def of(cls, wanted: Knowledge, context_tokens: int, seed: int) -> "Style":
        return cls(
            context_tokens,
            wanted.copies,
            wanted.distractors,
            wanted.refusals,
            wanted.set_aside,
            wanted.cues,
            wanted.role,
            wanted.licence,
            seed,
        )


@dataclass(frozen=True, slots=True)
class Case:
    """A question, the hit that answers it with its sentence, and hits that do not."""

    question: Question
    gold: Hit
    sentence: str
    wrong: tuple[Hit, ...]
    generation: int


def rows(
    kb: KnowledgeBase, name: str, questions: Sequence[Question], style: Style, dropped: Dropped
) -> Iterator[Row]:
    """The rows of all questions, in order; the same seed gives the same rows."""
    for question in questions:
        case = _case(question, kb.search(question.text, SEARCHED), style, dropped)
        if case is None:
            continue
        # A generator a question: one more does not change the rows of the others.
        rng = random.Random(f"{style.seed} {question.source} {question.text}")
        yield from _copies(case, name, style, rng, dropped)


def _copies(
    case: Case, name: str, style: Style, rng: random.Random, dropped: Dropped
) -> Iterator[Row]:
    """`style.copies` rows of a question, or as many as there are different prompts with its answer.

    How many references are shown, and under which numbers, must not tell whether there is an
    answer. So it is drawn of a prompt that differs from the others whether it refuses, and then it
    shows as many references as with the answer. Drawn before, 42% of the prompts with one reference
    refused and 27% of those with two, as there are few ways to show one, and a model learned it
    (docs/decisions/014). Not mended by this: with fewer than `style.distractors` + 1 wrong hits,
    the fullest prompt always has an answer.
    """
    asked = case.question
    seen: set[tuple[prompt.Excerpt, ...]] = set()
    lost: list[str] = []
    rows = 0
    for _ in range(_TRIES * style.copies):
        if rows == style.copies:
            return
        count = rng.randint(0, min(style.distractors, len(case.wrong)))
        refuses = bool(case.wrong) and rng.random() < style.refusals
        shown = _shown(_answering(case, count, rng), asked, style)
        if _texts(shown) in seen:
            continue
        seen.add(_texts(shown))
        if not any(hit is case.gold and case.sentence in e.text for hit, e in shown):
            lost.append("answer beyond the prompt's room")
            continue
        if refuses:
            shown = _refusing(case, len(shown), style, rng, seen)
            if not shown:
                lost.append("no refusal that shows as much")
                continue
            seen.add(_texts(shown))
        rows += 1
        yield _row(case, name, style, shown, refuses)
    for reason in lost[: style.copies - rows]:
        dropped.add(reason, f"{asked.source}: {asked.text}")


def _case(question: Question, found: Found, style: Style, dropped: Dropped) -> Case | None:
    shown = f"{question.source}: {question.text}"
    relevant = [h for h in found.hits if is_gold(h, question)]
    if not relevant:
        dropped.add("gold not retrieved", shown)
        return None
    for hit in relevant:
        if question.sentence:
            sentence = question.sentence if question.sentence in hit.chunk.text else None
        else:
            sentence = answers.sentence_of(hit, question.text, question.answers, style.cues)
        if sentence and _is_vague(question, hit, found):
            dropped.add("question that fits other passages too", shown)
            return None
        if sentence:
            wrong = tuple(h for h in found.hits if _is_wrong(h, hit, sentence, question))
            return Case(question, hit, sentence, wrong, found.generation)
    dropped.add("no sentence answers", shown)
    return None


def _is_vague(question: Question, gold: Hit, found: Found) -> bool:
    """Whether a question that was made from a passage may as well mean another one."""
    if not question.sentence:
        return False
    others = (h for h in found.hits if h.chunk.id != gold.chunk.id)
    return any(h.coverage >= gold.coverage for h in others)


def is_gold(hit: Hit, question: Question) -> bool:
    """Whether a hit is of what the question calls gold; where that is nothing, holds an answer."""
    if question.gold:
        return hit.filename in question.gold or passage(hit.chunk.id) in question.gold
    return answers.holds(hit.chunk.text, question.answers)


def _is_wrong(hit: Hit, gold: Hit, sentence: str, question: Question) -> bool:
    """Whether a hit surely does not answer. Known answers tell; where there are none, other parts
    of the same document may answer too, and so may another gold passage."""
    if hit.chunk.id == gold.chunk.id or is_gold(hit, question):
        return False
    if answers.holds(hit.chunk.text, question.answers):
        return False
    same = hit.document_sha256 == gold.document_sha256 or (gold.title and hit.title == gold.title)
    if not question.answers and (same or hit.coverage > _COVERED):
        return False
    said = set(content_words(sentence))
    return len(said & set(content_words(hit.chunk.text))) < _SAME * len(said)


def _answering(case: Case, count: int, rng: random.Random) -> list[Hit]:
    """`count` wrong hits in the retriever's order, half the time its first ones, and among them the
    gold one."""
    hits = sorted([case.gold, *_wrong(case, count, rng)], key=lambda h: -h.score)
    if rng.random() >= _BY_RANK:
        hits.remove(case.gold)
        hits.insert(rng.randint(0, len(hits)), case.gold)
    return hits


def _refusing(
    case: Case,
    references: int,
    style: Style,
    rng: random.Random,
    seen: Set[tuple[prompt.Excerpt, ...]],
) -> Shown:
    """Wrong hits in the retriever's order of which the prompt shows so many, and which were not
    shown yet; nothing if none are found."""
    most = min(style.distractors + 1, len(case.wrong))  # as many as stand beside gold, and gold
    for count in rng.sample(range(1, most + 1), most):
        hits = sorted(_wrong(case, count, rng), key=lambda h: -h.score)
        shown = _shown(hits, case.question, style)
        if len(shown) == references and _texts(shown) not in seen:
            return shown
    return ()


def _wrong(case: Case, count: int, rng: random.Random) -> list[Hit]:
    near = case.wrong[: count if rng.random() < 0.5 else 2 * count + 2]
    return rng.sample(near, min(count, len(near)))


def _shown(hits: Sequence[Hit], question: Question, style: Style) -> Shown:
    excerpts = prompt.excerpts(question.text, hits, style.context_tokens)
    return tuple((hits[e.number - 1], e) for e in excerpts)


def _texts(shown: Shown) -> tuple[prompt.Excerpt, ...]:
    """What tells one prompt from another: two hits may have the same text."""
    return tuple(excerpt for _, excerpt in shown)


def _row(case: Case, name: str, style: Style, shown: Shown, refuses: bool) -> Row:
    question = case.question.text
    language = "zh" if is_chinese(question) else "en"
    reply = prompt.REFUSAL[language]
    wanted: str | None = reply
    if not refuses:
        wanted = next(iter(case.question.answers), None)
        number = next(e.number for hit, e in shown if hit is case.gold)
        reply = answers.says(prompt.harmless(case.sentence), number)
        if style.set_aside:
            unused = [e.number for _, e in shown if e.number != number]
            reply = prompt.set_aside(unused, language) + reply
    messages = prompt.messages(question, [excerpt for _, excerpt in shown])
    visible = sorted((hit for hit, _ in shown), key=lambda h: h is not case.gold)
    return Row(
        messages=(*map(Message.model_validate, messages), Message(role="assistant", content=reply)),
        role=style.role,
        ability="refusal" if refuses else "grounding",
        language=of_question(question, case.gold.chunk.text),
        answer=wanted,
        origin=Origin(
            source=f"kb:{name} {case.question.source}",
            licence=style.licence,
            chunks=tuple(h.chunk.id for h in visible),
            documents=tuple(dict.fromkeys(h.document_sha256 for h in visible)),
            gold=case.gold.document_sha256,
            generation=case.generation,
        ),
    )


def stale(rows: Sequence[Row], store: Store) -> list[Row]:
    """Rows that show a document which is no longer alive in this version."""
    alive = store.living({sha for row in rows for sha in row.origin.documents})
    return [row for row in rows if not alive.issuperset(row.origin.documents)]
