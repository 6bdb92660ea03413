"""A collection on disk -> passages and the questions that come with them.

A folder in BEIR's layout, items that bring their passages, or plain texts. What the model will be
judged on is left out here, so that no distractor is one. Knows nothing of embeddings.
"""

import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from finetune import files
from finetune.clean import Dropped
from finetune.data_settings import Knowledge
from finetune.overlap import Judged
from finetune.questions import Question, given, question, read_qrels
from kb.collection import Collection, Passage
from kb.errors import BadData

T = TypeVar("T")
_GLUED = re.compile(r"(?<=[a-z0-9)\"”])\.(?=[A-Z][a-z]+[ ,])")
"""Where paragraphs were joined without a space: `... and socialism.Humans lived ...`."""
_TITLE = 6  # words


@dataclass(frozen=True, slots=True)
class Reading:
    """Passages, and the questions whose gold passages are all among them."""

    collection: Collection
    questions: tuple[Question, ...]


def read(wanted: Knowledge, judged: Judged, dropped: Dropped, seed: int) -> Reading:
    """Raises BadData with file and line."""
    assert wanted.collection is not None
    passages, questions = _read(wanted.collection, wanted)
    kept: dict[str, Passage] = {}
    for passage in passages:
        if judged.holds(passage.text):
            dropped.add("passages that the evaluation holds", f"{passage.id}: {passage.text[:120]}")
        else:
            kept.setdefault(passage.id, passage)
    ready = [q for q in questions if all(i in kept for i in q.gold)]
    lost = len(questions) - len(ready)
    for q in (q for q in questions if not all(i in kept for i in q.gold)):
        dropped.add("questions whose passage is left out", f"{q.source}: {q.text}")
    if not kept:
        raise BadData(f"{wanted.collection}: no passage is left ({lost} questions lost theirs)")
    # Of questions that are made here, `most` are taken later; the passages are the same.
    chosen = sample(ready, wanted.most, seed) if wanted.ask == "given" else ready
    few = _fill(list(kept.values()), chosen, wanted.most_passages, seed)
    digest = hashlib.sha256("\n".join(f"{p.id}\0{p.text}" for p in few).encode()).hexdigest()
    return Reading(Collection(tuple(few), (), digest), tuple(chosen))


def sample(values: Sequence[T], most: int | None, seed: int) -> list[T]:
    """At most so many, drawn by the seed, in their order."""
    if most is None or most >= len(values):
        return list(values)
    drawn = sorted(random.Random(seed).sample(range(len(values)), most))
    return [values[n] for n in drawn]


def _fill(
    passages: list[Passage], questions: Sequence[Question], most: int | None, seed: int
) -> list[Passage]:
    """The passages that questions need, and others up to `most`."""
    if most is None or most >= len(passages):
        return passages
    needed = {i for q in questions for i in q.gold}
    others = [p.id for p in passages if p.id not in needed]
    room = max(0, min(len(others), most - len(needed)))
    needed.update(random.Random(seed).sample(others, room))
    return [p for p in passages if p.id in needed]


def _read(path: Path, wanted: Knowledge) -> tuple[list[Passage], list[Question]]:
    if path.is_dir():
        return _folder(path, wanted)
    if files.is_text(path):
        return list(_texts(path)), _asked(wanted)
    first = next(files.records(path)).value
    if "passages" in first:
        return _items(path, wanted)
    return [_passage(r, str(n)) for n, r in enumerate(files.records(path), 1)], _asked(wanted)


def _asked(wanted: Knowledge) -> list[Question]:
    return given(wanted.questions, wanted.language) if wanted.questions else []


def _folder(folder: Path, wanted: Knowledge) -> tuple[list[Passage], list[Question]]:
    passages = [_passage(r) for r in files.records(folder / "corpus.jsonl")]
    file = wanted.questions or next(
        (folder / n for n in ("qa.jsonl", "queries.jsonl") if (folder / n).is_file()), None
    )
    if file is None:
        return passages, []
    qrels = read_qrels(folder / "qrels.tsv") if (folder / "qrels.tsv").is_file() else {}
    known = {p.id for p in passages}
    asked = []
    conclusions: dict[str, str] = {}
    for record in files.records(file):
        name = str(record.value.get("id", ""))
        # PubMedQA asks with the title of an abstract, under the abstract's id, and keeps its
        # conclusion apart.
        if isinstance(conclusion := record.value.get("long_answer"), str) and name in known:
            conclusions[name] = conclusion
            qrels.setdefault(name, [name])
        asked.append(question(record, wanted.language, qrels))
    whole = [
        replace(p, text=f"{p.text}\n{conclusions[p.id]}") if p.id in conclusions else p
        for p in passages
    ]
    return whole, asked


def _items(path: Path, wanted: Knowledge) -> tuple[list[Passage], list[Question]]:
    """Each item brings its passages; the same id in two items is the same passage only if it has
    the same text."""
    passages: dict[str, Passage] = {}
    asked = []
    for record in files.records(path):
        names = {}
        several = record.value.get("passages") or []
        for shown in several if isinstance(several, list) else [several]:
            if not isinstance(shown, dict) or not isinstance(shown.get("text"), str):
                raise BadData(f"{record.where}: passages: must be objects with id and text")
            digest = hashlib.sha256(shown["text"].encode()).hexdigest()[:8]
            names[str(shown.get("id"))] = name = f"{shown.get('id')}-{digest}"
            passages.setdefault(name, Passage(name, str(shown.get("title") or ""), shown["text"]))
        one = question(record, wanted.language, {})
        if unknown := [i for i in one.gold if i not in names]:
            raise BadData(f"{record.where}: gold names {unknown[0]!r}, which is no passage of it")
        asked.append(replace(one, gold=tuple(names[i] for i in one.gold)))
    return list(passages.values()), asked


def _texts(path: Path) -> Iterator[Passage]:
    """Each line is a document: an article, or a paragraph."""
    for number, line in enumerate(files.text(path).split("\n"), 1):
        if line.strip():
            yield _titled(str(number), line)


def _passage(record: files.Record, name: str = "") -> Passage:
    value = record.value
    if not isinstance(value.get("text"), str):
        raise BadData(f"{record.where}: text is missing")
    name = str(value.get("id", value.get("_id", name)))
    if not name:
        raise BadData(f"{record.where}: id is missing")
    if "title" not in value and "id" not in value:
        return _titled(name, value["text"])
    return Passage(name, str(value.get("title") or ""), value["text"])


def _titled(name: str, text: str) -> Passage:
    whole = _GLUED.sub(".\n", text.strip())
    return Passage(name, " ".join(whole.split()[:_TITLE]), whole)
