"""The story of `finetune data`: sources and knowledge bases -> rows to train on, and an account.

`output_dir/data/` gets val.jsonl, train.jsonl and, last, data.json, which names the hashes of both:
where train.jsonl is, the set is whole (`finetune.trainset` looks).
Knows nothing of the command line or of models.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from finetune import formats, grounding, made, overlap, passages, trainset
from finetune.bases import Bases
from finetune.chat import KEY, HttpChat
from finetune.clean import Dropped, Outliers, clean, distinct, unseen
from finetune.data_settings import Knowledge, Source
from finetune.mix import Group, hold_out, mix
from finetune.overlap import Judged
from finetune.questions import Question, given
from finetune.rows import HELD_OUT, MANIFEST, TRAIN, Row, write
from finetune.settings import TrainSettings
from kb.durable import replace
from kb.errors import BadData, TrainingStopped

Report = Callable[[str], None]


def prepare(
    settings: TrainSettings,
    bases: Bases,
    report: Report,
    *,
    outliers: Outliers | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Make the rows and write them; returns what data.json holds.

    Raises BadData, BadConfiguration, UnknownKnowledgeBase, EngineDown.
    """
    judged = overlap.read(overlap.evaluations(settings))
    dropped = Dropped()
    groups: list[Group] = []
    sources = []
    for source in settings.data.sources:
        report(f"reading {source.path.name}")
        rows = list(formats.rows(source))
        kept = _short(rows, source.longest, dropped)
        kept = _clean(kept, settings, judged, dropped, outliers)
        kept = passages.sample(kept, source.most, settings.seed)
        groups.append(Group(_name(source.name, groups), source.role, tuple(kept), source.weight))
        digest = _hash(source.path.read_bytes())
        sources.append(_account(groups[-1].name, source, digest, len(rows)))
    for wanted in settings.data.knowledge:
        report(f"asking {wanted.name}")
        rows, digest = _grounded(wanted, settings, bases, judged, dropped)
        kept = _clean(rows, settings, judged, dropped)
        groups.append(Group(_name(wanted.name, groups), wanted.role, tuple(kept), wanted.weight))
        generation = max((row.origin.generation for row in rows), default=0)
        account = _account(groups[-1].name, wanted, digest, len(rows))
        sources.append(account | {"generation": generation})
    groups = _distinct(groups, dropped, settings.data.near_duplicate)
    mixed = mix(groups, settings.data.mix, settings.seed)
    train, val = hold_out(mixed.rows, settings.data.val_size, settings.seed)
    if not train:
        raise BadData(f"no row is left to train on; dropped: {dropped.counts or 'nothing'}")
    account = {
        "sources": [s | {"kept": len(g.rows)} for s, g in zip(sources, groups, strict=True)],
        "dropped": dropped.as_json(),
        "mix": mixed.report,
        "abilities": _abilities(mixed.rows),
        "seed": settings.seed,
        "retrieval": bases.retrieval if settings.data.knowledge else None,
        "rows": {"train": len(train), "val": len(val)},
        "field_held_out": sum(row.role == "domain" for row in val),
    }
    return account if dry_run else _write(settings.output_dir / "data", train, val, account)


def _short(rows: Sequence[Row], longest: int | None, dropped: Dropped) -> list[Row]:
    out = []
    for row in rows:
        if longest is not None and row.characters > longest:
            dropped.row("longer than asked", row)
        else:
            out.append(row)
    return out


def _clean(
    rows: Sequence[Row],
    settings: TrainSettings,
    judged: Judged,
    dropped: Dropped,
    outliers: Outliers | None = None,
) -> list[Row]:
    data = settings.data
    kept = clean(
        rows,
        dropped,
        languages=data.languages,
        near_duplicate=1.0 if _is_grounded(rows) else data.near_duplicate,
        outliers=outliers,
    )
    return unseen(_fit(kept, settings, dropped), judged, dropped)


def _fit(rows: Sequence[Row], settings: TrainSettings, dropped: Dropped) -> list[Row]:
    """Those that the stage can train on: a feedback export has answers that nobody corrected."""
    out = []
    for row in rows:
        if lacking := trainset.lacks(row, settings):
            dropped.row(lacking, row)
        else:
            out.append(row)
    return out


def _is_grounded(rows: Sequence[Row]) -> bool:
    """Such rows of one question are alike on purpose: only twins of one source are dropped."""
    return any(row.origin.chunks for row in rows)


def _distinct(groups: Sequence[Group], dropped: Dropped, near_duplicate: float) -> list[Group]:
    """What two sources say stays with the first: else a row that is trained on could be held out
    too. Within a source it was looked for before `most` were drawn."""
    plain = [group for group in groups if not _is_grounded(group.rows)]
    if len(plain) < 2:
        return list(groups)
    rows = [row for group in plain for row in group.rows]
    gone = {id(row) for row in rows} - {id(row) for row in distinct(rows, dropped, near_duplicate)}
    return [
        dataclasses.replace(g, rows=tuple(r for r in g.rows if id(r) not in gone)) for g in groups
    ]


def _grounded(
    wanted: Knowledge, settings: TrainSettings, bases: Bases, judged: Judged, dropped: Dropped
) -> tuple[list[Row], str]:
    """Rows, and the hash of what they were made from: the questions, and the passages that were
    read, or of a live knowledge base the documents that rows show."""
    style = grounding.Style.of(wanted, settings.room, settings.seed)
    questions: Sequence[Question] = ()
    passages_read = ""
    if wanted.collection:
        reading = passages.read(wanted, judged, dropped, settings.seed)
        opened, questions = bases.made(reading.collection), reading.questions
        passages_read = reading.collection.corpus_sha256
    else:
        opened = bases.live(wanted.kb)
        if wanted.questions and wanted.ask == "given":
            questions = given(wanted.questions, wanted.language)
            questions = passages.sample(questions, wanted.most, settings.seed)
    with opened as kb:
        if wanted.ask == "rules":
            questions = passages.sample(list(made.by_rules(kb)), wanted.most, settings.seed)
        elif wanted.ask == "engine":
            key = os.environ.get(KEY, "")
            chat = HttpChat(wanted.engine_url, wanted.engine_model, key=key)
            questions = list(made.by_engine(kb, chat, wanted.most, settings.seed, dropped))
        rows = list(grounding.rows(kb, wanted.name, questions, style, dropped))
    shown = [] if wanted.collection else _documents(rows)
    asked = [f"{q.text}\0{q.answers}" for q in questions]
    return rows, _hash("\n".join([passages_read, *shown, *asked]).encode())


def _documents(rows: Sequence[Row]) -> list[str]:
    return sorted({document for row in rows for document in row.origin.documents})


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _account(name: str, source: Source | Knowledge, digest: str, made: int) -> dict[str, Any]:
    return {
        "name": name,
        "role": source.role,
        "licence": source.licence,
        "sha256": digest,
        "rows": made,
    }


def _name(name: str, groups: Sequence[Group]) -> str:
    """A name that no other group has."""
    taken = {group.name for group in groups}
    names = (name, *(f"{name} ({n})" for n in range(2, len(groups) + 2)))
    return next(one for one in names if one not in taken)


def _abilities(rows: Sequence[Row]) -> dict[str, int]:
    names = sorted({row.ability for row in rows})
    return {name: sum(row.ability == name for row in rows) for name in names}


def _write(
    folder: Path, train: Sequence[Row], val: Sequence[Row], account: dict[str, Any]
) -> dict[str, Any]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Whenever this is ended, no rows are left beside those that an earlier set held out.
        for name in (MANIFEST, TRAIN):
            (folder / name).unlink(missing_ok=True)
        files = {}
        for name, rows in ((HELD_OUT, val), (TRAIN, train)):
            write(rows, folder / name)
            files[name] = _hash((folder / name).read_bytes())
        account = account | {"files": files}
        replace(folder / MANIFEST, json.dumps(account, ensure_ascii=False, indent=2) + "\n")
    except OSError as error:
        raise TrainingStopped(f"{folder}: could not be written: {error.strerror}") from error
    return account
