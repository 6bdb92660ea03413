"""What would go wrong in a run, before it does: the rows as the model will see them, and the rules.

Nothing is trained and no weights are read. Knows no command line; `finetune.cli_judge` prints.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from finetune import (
    duplicates,
    grounding,
    heldout,
    inspection,
    lengths,
    noise,
    outlook,
    problems,
    rendering,
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
from finetune.render import Ledger, Renderer
from finetune.rendering import Rendering
from finetune.rows import Row
from finetune.settings import TrainSettings
from finetune.shape import Shape
from kb.catalog import Catalog
from kb.errors import BadConfiguration, UnknownKnowledgeBase
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
    made, seen, held = Rendering(), None, rows.held_out
    try:
        renderer = Renderer(model.tokenizer, chat=rows.chats)
    except BadConfiguration as error:
        found.append(Problem("serious", "template", str(error)))
    else:
        made = rendering.render(rows.train, renderer, settings)
        found += rendering.trained(made, settings, model.shape, len(rows.train))
        if settings.stage != "grpo":  # which holds nothing out
            judging = {role: rendering.render(h, renderer, settings) for role, h in held.items()}
            for role, some in judging.items():
                found += rendering.held_out(some, settings, role, len(held[role]))
            held = {role: tuple(some.rows) for role, some in judging.items() if some.rows}
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
    found += heldout.missing(settings, rows.train, list(held))
    found += heldout.leaks(settings, rows)
    if live is not None:
        found += _stale(settings, rows.train, live)
    found += problems.of_rules(rules.findings(facts))
    shown = tuple(
        (row.origin.source, tuple(inspection.segments(one, renderer)))
        for row, one in zip(made.rows[:SHOWN], made.rendered, strict=False)
    )
    return Diagnosis(tuple(found), shown, facts, made.ledger, seen)


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
        # What `weight` has repeated is the same row of the same source.
        duplicates=len(duplicates.exact(list(dict.fromkeys(rows)))),
        linear=tuple(dict.fromkeys(model.shape.names)),
        unlike=sum(r in UNLIKE for r in reasons),
    )


def _noise(row: Row) -> str:
    return next((name for name, broken in noise.REASONS.items() if broken(row)), "")


def _is_foreign(row: Row, settings: TrainSettings) -> bool:
    wanted = settings.data.languages
    return bool(wanted) and bool(row.language) and row.language not in wanted


def _spoken(row: Row) -> str:
    return language(row.text or f"{row.prompt[-1].content}\n{row.reply}")
