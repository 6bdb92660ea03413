"""The field's questions + the live knowledge base -> items that hold what serving would retrieve.

A question is `clean` where a passage of its gold document is among the hits. Where none is, the
retriever missed it: what would be right to say then, nobody can tell, so that is a kind of its own.
A question without a gold document is to be refused. Knows no engine and no judge.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from finetune.files import records
from finetune.grounding import is_gold
from finetune.items import MISSED, UNANSWERABLE, Grounding, Passage
from finetune.language import of_question
from finetune.questions import GOLD, Question, question
from kb.errors import BadData
from kb.records import Found, Hit
from kb.search import KnowledgeBase


def read(file: Path, languages: Sequence[str] = ()) -> list[Question]:
    """The questions of a file, of these languages if any are named. Raises BadData with file and
    line for one that does not say what answers it."""
    one = languages[0] if len(languages) == 1 else ""
    found = []
    for record in records(file):
        asked = question(record, one, {})
        if not asked.gold and asked.answers and not any(key in record.value for key in GOLD):
            raise BadData(f'{record.where}: names no gold document; "gold": [] if none answers')
        if asked.gold and not asked.answers:
            raise BadData(f"{record.where}: has a gold document but no answers")
        if not languages or language(asked) in languages:
            found.append(asked)
    return found


def language(asked: Question) -> str:
    return of_question(asked.text, "\n".join(asked.answers))


def items(kb: KnowledgeBase, asked: Sequence[Question], top_k: int) -> Iterator[Grounding]:
    """An item a question. Raises BadData if the knowledge base holds nothing."""
    for one in asked:
        found = kb.search(one.text, top_k)
        if not found.hits:
            raise BadData(f"{one.source}: knowledge base {kb.name} holds no passages")
        yield _item(one, found)


def _item(asked: Question, found: Found) -> Grounding:
    gold = tuple(_name(hit) for hit in found.hits if is_gold(hit, asked)) if asked.gold else ()
    kind = "clean" if gold else MISSED if asked.gold else UNANSWERABLE
    return Grounding(
        question=asked.text,
        answers=asked.answers,
        passages=tuple(
            Passage(id=_name(hit), text=hit.chunk.text, title=hit.title) for hit in found.hits
        ),
        gold=gold,
        kind=kind,
        lang=language(asked),
    )


def _name(hit: Hit) -> str:
    return f"{hit.filename}#{hit.chunk.id}"
