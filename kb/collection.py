"""A retrieval test collection on disk: corpus.jsonl, queries.jsonl, qrels.tsv (BEIR's layout).

Reads and checks; raises BadData with file and line. Knows nothing of search.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kb.errors import BadData


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage of the corpus; it becomes one document."""

    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Query:
    """A question and how relevant which passages are to it."""

    id: str
    text: str
    relevance: dict[str, float]


@dataclass(frozen=True, slots=True)
class Collection:
    passages: tuple[Passage, ...]
    queries: tuple[Query, ...]
    """Only those with at least one relevant passage."""
    corpus_sha256: str


def read(folder: Path) -> Collection:
    """Raises BadData for a missing file, a row that is none, or qrels that name unknown ids."""
    for name in ("corpus.jsonl", "queries.jsonl", "qrels.tsv"):
        if not (folder / name).is_file():
            raise BadData(f"{folder} holds no {name}")
    passages = [
        Passage(_id(row, where), str(row.get("title") or ""), _text(row, where))
        for row, where in _rows(folder / "corpus.jsonl")
    ]
    _unique([p.id for p in passages], "corpus.jsonl")
    relevance = _qrels(folder / "qrels.tsv", {p.id for p in passages})
    queries = [
        Query(_id(row, where), _text(row, where), relevance.get(_id(row, where), {}))
        for row, where in _rows(folder / "queries.jsonl")
    ]
    judged = tuple(q for q in queries if any(r > 0 for r in q.relevance.values()))
    if not passages or not judged:
        raise BadData(f"{folder}: no passages, or no query with a relevant one")
    digest = hashlib.sha256((folder / "corpus.jsonl").read_bytes()).hexdigest()
    return Collection(tuple(passages), judged, digest)


def _rows(file: Path) -> Iterator[tuple[dict[str, Any], str]]:
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{file.name} line {number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                raise BadData(f"{where} is not JSON: {error}") from error
            if not isinstance(row, dict):
                raise BadData(f"{where} is not an object")
            yield row, where


def _id(row: dict[str, Any], where: str) -> str:
    found = row.get("id", row.get("_id"))
    if not isinstance(found, str | int) or found == "":
        raise BadData(f"{where} has no id")
    return str(found)


def _text(row: dict[str, Any], where: str) -> str:
    if not isinstance(row.get("text"), str):
        raise BadData(f"{where} has no text")
    return str(row["text"])


def _unique(ids: list[str], name: str) -> None:
    seen: set[str] = set()
    for one in ids:
        if one in seen:
            raise BadData(f"{name} has the id {one!r} twice")
        seen.add(one)


def _qrels(file: Path, known: set[str]) -> dict[str, dict[str, float]]:
    """query id -> passage id -> relevance. A first line without a number is a header."""
    out: dict[str, dict[str, float]] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{file.name} line {number}"
        try:
            query, passage, score = line.split("\t")
            relevance = float(score)
        except ValueError as error:
            if number == 1:
                continue
            raise BadData(f"{where} is not `query<TAB>passage<TAB>score`") from error
        if passage not in known:
            raise BadData(f"{where} names passage {passage!r}, which corpus.jsonl does not hold")
        out.setdefault(query, {})[passage] = relevance
    return out
