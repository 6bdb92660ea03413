"""What would go wrong in a run, before it does: the rows as the model will see them, and the rules.

Nothing is trained and no weights are read. Knows no command line; `finetune.cli_judge` prints.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from finetune import (
    duplicates,
    grounding,
    inspection,
    lengths,
    noise,
    outlook,
    overlap,
    problems,
    rules,
    servable,
    trainset,
)
from finetune.facts import Facts, count
from finetune.inspection import Segment, Tokenize
from finetune.language import language
from finetune.memory import MARGIN, Machine
from finetune.outlook import Outlook
from finetune.problems import Problem
from finetune.render import Ledger, Rendered, Renderer
from finetune.rows import Row
from finetune.settings import TrainSettings
from finetune.shape import Shape
from kb.catalog import Catalog
from kb.errors import BadConfiguration, BadData, UnknownKnowledgeBase
from kb.layout import DATABASE
from kb.store import Store

SHOWN = 3
ASKED = 8
"""Rows that the engine is asked to tokenize."""
UNLIKE = ("template fragments", "another assistant's manner")
"""Reasons of `finetune.noise` that say a row does not fit the model, not that it is broken."""


@dataclass(frozen=True, slots=True)
class Model:
    """What is known of the base without its weights."""

    tokenizer: PreTrainedTokenizerBase
    shape: Shape
    stops: frozenset[int]
    """Tokens that end an answer."""
    languages: tuple[str, ...] = ()
    adapter: Mapping[str, Any] | None = None
    """adapter_config.json of an adapter that is there already."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Problems, a few rows as they will be trained, and what was counted."""

    problems: tuple[Problem, ...]
    shown: tuple[tuple[str, tuple[Segment, ...]], ...]
    """(source, the row in segments)."""
    facts: Facts
    ledger: Ledger
    outlook: Outlook | None = None
    """What the run needs of a machine; None where none was named, or no row could be rendered."""

    @property
    def serious(self) -> list[Problem]:
        return [p for p in self.problems if p.is_serious]


@dataclass(slots=True)
class _Rendering:
    """Rows that fit with their tokens, and what is wrong with the others."""

    rows: list[Row] = field(default_factory=list)
    rendered: list[Rendered] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)
    broken: list[str] = field(default_factory=list)


def examine(
    settings: TrainSettings,
    model: Model,
    tokenize: Tokenize | None = None,
    on: Machine | None = None,
    live: Catalog | None = None,
) -> Diagnosis:
    """Look at a run's rows, its model and its configuration, at the memory of the machine that it
    is to run `on`, and whether rows of `live` knowledge bases still hold. Raises BadData for rows
    that cannot be read, EngineDown if `tokenize` does not answer."""
    rows = trainset.load(settings)
    found = [*servable.settings(settings)]
    if model.adapter is not None:
        tokens, vocabulary = len(model.tokenizer), model.shape.vocabulary
        found += servable.adapter(model.adapter, tokens=tokens, vocabulary=vocabulary)
    made, seen = _Rendering(), None
    try:
        renderer = Renderer(model.tokenizer, chat=any(row.messages for row in rows.train))
    except BadConfiguration as error:
        found.append(Problem("serious", "template", str(error)))
    else:
        made = _render(rows.train, renderer, settings.cutoff_len)
        found += _lengths(made, settings, model.shape, len(rows.train))
        found += inspection.ends(made.rows, made.rendered, set(model.stops))
        found += inspection.prefixes(made.rows, made.rendered, renderer)
        if tokenize:
            asked = [row for row in made.rows if row.messages][:ASKED]
            found += inspection.engine(asked, renderer, tokenize)
        if on is not None and made.rows:
            sized = lengths.sized(made.rows, made.rendered, renderer, settings)
            seen = outlook.of(settings, model.shape, sized, on)
            found += _memory(settings, model.shape, seen)
    facts = _facts(settings, rows.train, model, seen)
    found += _held_out(settings, rows)
    found += _leaks(settings, rows)
    if live is not None:
        found += _stale(settings, rows.train, live)
    found += problems.of_rules(rules.findings(facts))
    shown = tuple(
        (row.origin.source, tuple(inspection.segments(one, renderer)))
        for row, one in zip(made.rows[:SHOWN], made.rendered, strict=False)
    )
    return Diagnosis(tuple(found), shown, facts, made.ledger, seen)


def _render(rows: Sequence[Row], renderer: Renderer, most: int) -> _Rendering:
    made = _Rendering()
    for row in rows:
        try:
            one = renderer.row(row)
        except BadData as error:
            made.broken.append(str(error))
            continue
        if len(one.input_ids) > most:
            made.ledger.too_long.append(f"{row.origin.source} ({len(one.input_ids)} tokens)")
            continue
        made.ledger.add(one)
        made.rows.append(row)
        made.rendered.append(one)
    return made


def _lengths(
    made: _Rendering, settings: TrainSettings, shape: Shape, rows: int
) -> Iterator[Problem]:
    if made.broken:
        text = f"{len(made.broken)} rows cannot be rendered: {made.broken[0]}"
        yield Problem("serious", "template", text)
    if long := made.ledger.too_long:
        share = len(long) / rows
        over = share > settings.max_too_long
        text = f"{len(long)} rows ({share:.1%}) are longer than cutoff_len {settings.cutoff_len}"
        text += f" and left out: {long[0]}; max_too_long allows {settings.max_too_long:.1%}"
        yield Problem("serious" if over else "note", "length", text)
    if empty := sum(not one.trained for one in made.rendered):
        yield Problem("serious", "labels", f"{empty} rows train no token")
    if shape.most_tokens and settings.cutoff_len > shape.most_tokens:
        text = f"cutoff_len {settings.cutoff_len}: the model knows {shape.most_tokens} positions"
        yield Problem("serious", "length", text)


def _memory(settings: TrainSettings, shape: Shape, seen: Outlook) -> Iterator[Problem]:
    need, have = seen.run.total, seen.machine.available
    if not seen.enough:
        yield Problem("serious", "memory", outlook.too_little(settings, shape, seen))
        return
    text = (
        f"batches of {seen.batch.rows} x {seen.batch.length} tokens need about {outlook.gb(need)},"
        f" {outlook.gb(have)} are free"
    )
    if need * MARGIN > have:
        yield Problem("warning", "memory", f"{text}, and the estimate may be off by 15%")
    else:
        yield Problem("note", "memory", text)


def _held_out(settings: TrainSettings, rows: trainset.TrainSet) -> Iterator[Problem]:
    """The checkpoint that is kept is chosen by the held-out loss of the field (not in grpo)."""
    trained = any(row.role == "domain" for row in rows.train)
    if settings.stage == "grpo" or not trained or "domain" in rows.held_out:
        return
    role = next(iter(rows.held_out), "")
    judge = f"the loss of {role} rows chooses" if role else "no loss stops the run, or chooses"
    text = f"no row of the field is held out: {judge} the checkpoint that is kept; more documents"
    yield Problem("warning", "held out", f"{text}, or a larger data.val_size, would give some")


def _leaks(settings: TrainSettings, rows: trainset.TrainSet) -> Iterator[Problem]:
    """Rows that hold what the model will be judged on, or stopped by."""
    judged = settings.eval
    mine = (*judged.questions, *judged.grounding, *judged.choice, *judged.maths)
    files = (*settings.data.eval_files, *mine)
    if files:
        known = overlap.read(list(dict.fromkeys(files)))
        held = [row.origin.source for row in rows.train if known.overlaps(row)]
        if held:
            text = f"{len(held)} rows hold what the model will be judged on: {held[0]}"
            yield Problem("serious", "overlap", text)
    trained = {noise.whole(row) for row in rows.train}
    twice = [r for some in rows.held_out.values() for r in some if noise.whole(r) in trained]
    if twice:
        text = f"{len(twice)} held-out rows are trained on too: {twice[0].origin.source}"
        yield Problem("warning", "overlap", text)


def _stale(settings: TrainSettings, rows: Sequence[Row], live: Catalog) -> Iterator[Problem]:
    """Rows of documents that were edited or removed since."""
    for name in dict.fromkeys(one.kb for one in settings.data.knowledge if one.kb):
        made = [row for row in rows if row.origin.source.startswith(f"kb:{name} ")]
        if not made:
            continue
        try:
            store = Store(live.get(name).folder / DATABASE, readonly=True)
        except UnknownKnowledgeBase as error:
            yield Problem("warning", "stale", f"{len(made)} rows are of {name}: {error}")
            continue
        try:
            old = grounding.stale(made, store)
        finally:
            store.close()
        if old:
            text = f"{len(old)} of {len(made)} rows show documents of {name} that have changed"
            text += f" since: {old[0].origin.source}; run `finetune data` again"
            yield Problem("warning", "stale", text)


def _facts(
    settings: TrainSettings, rows: Sequence[Row], model: Model, seen: Outlook | None
) -> Facts:
    known = [row.model_copy(update={"language": row.language or _spoken(row)}) for row in rows]
    reasons = [_noise(row) for row in rows]
    return Facts(
        settings,
        count(known),
        parameters=model.shape.parameters,
        languages=model.languages,
        full_fits=seen.fits("full") if seen else None,
        lora_fits=seen.fits("lora") if seen else None,
        noisy=sum(
            (bool(reason) and reason not in UNLIKE) or _is_foreign(row, settings)
            for row, reason in zip(known, reasons, strict=True)
        ),
        duplicates=len(duplicates.exact(rows)),
        unlike=sum(r in UNLIKE for r in reasons),
    )


def _noise(row: Row) -> str:
    return next((name for name, broken in noise.REASONS.items() if broken(row)), "")


def _is_foreign(row: Row, settings: TrainSettings) -> bool:
    wanted = settings.data.languages
    return bool(wanted) and bool(row.language) and row.language not in wanted


def _spoken(row: Row) -> str:
    return language(row.text or f"{row.prompt[-1].content}\n{row.reply}")
