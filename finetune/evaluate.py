"""Base against candidate, on the same items, with retrieval on and off: the story of an evaluation.

Everything is asked of both models through the same judges; the comparison is paired, and the gate
speaks last. Knows no files of reports (`finetune.report`) and loads no weights (`finetune.local`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from finetune import gate, judges, retrieved
from finetune.bases import Bases
from finetune.compare import Compared, Spread, compare, spread
from finetune.engines import Engine
from finetune.items import Choice, Grounding, Maths, One, drawn, drawn_evenly, read, read_text
from finetune.judges import Answer, Measure, Result
from finetune.questions import Question
from finetune.settings import EvalSettings, TrainSettings
from kb.errors import BadConfiguration

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Items:
    """What both models are asked. `questions` hold what was found in the live knowledge base, at
    `generation`."""

    questions: tuple[Grounding, ...] = ()
    grounding: tuple[Grounding, ...] = ()
    choice: tuple[Choice, ...] = ()
    maths: tuple[Maths, ...] = ()
    text: tuple[str, ...] = ()
    generation: int = 0

    def counts(self) -> dict[str, int]:
        names = ("questions", "grounding", "choice", "maths", "text")
        return {name: len(getattr(self, name)) for name in names}


@dataclass(frozen=True, slots=True)
class Models:
    """Who is asked."""

    base: Engine
    candidate: Engine
    others: Mapping[int, Engine] = field(default_factory=dict)
    """Runs of the same configuration with other seeds, by their seed."""
    served: Engine | None = None
    """The release that the candidate is held against."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What came of it."""

    base: str
    candidate: str
    compared: tuple[Compared, ...]
    verdict: gate.Verdict
    beside: gate.Beside | None
    """The release that is served against the candidate; None where the base is."""
    spread: tuple[Spread, ...]
    """Over the candidate and its runs with other seeds; empty without such."""
    answers: tuple[tuple[Answer, str, bool], ...]
    """The base's answer, what the candidate said to the same, and whether that was right."""


def items(settings: TrainSettings, bases: Bases) -> Items:
    """The items of a configuration, drawn by its seed; questions are searched for in `bases`.
    Raises BadData, UnknownKnowledgeBase, and BadConfiguration if nothing is named."""
    wanted, most, seed = settings.eval, settings.eval.most, settings.seed
    languages = wanted.languages or settings.data.languages
    grounding: list[Grounding] = []
    for file in wanted.grounding:
        found = [i for i in read(file, Grounding) if not languages or i.language in languages]
        grounding += drawn_evenly(found, most, seed)

    def some(files: Sequence[Path], read_one: Callable[[Path], Sequence[One]]) -> tuple[One, ...]:
        return tuple(item for file in files for item in drawn(read_one(file), most, seed))

    asked = some(wanted.questions, lambda file: retrieved.read(file, languages))
    questions, generation = _searched(asked, wanted, bases)
    made = Items(
        questions=questions,
        grounding=tuple(grounding),
        choice=some(wanted.choice, lambda file: read(file, Choice)),
        maths=some(wanted.maths, lambda file: read(file, Maths)),
        text=some(wanted.text, read_text),
        generation=generation,
    )
    if not any(made.counts().values()):
        raise BadConfiguration("eval: names no items (questions, grounding, choice, maths, text)")
    return made


def _searched(
    asked: Sequence[Question], wanted: EvalSettings, bases: Bases
) -> tuple[tuple[Grounding, ...], int]:
    """The questions with their passages, and the generation that was read (or a later one)."""
    if not asked:
        return (), 0
    with bases.live(wanted.kb) as kb:
        generation = kb.catch_up()
        return tuple(retrieved.items(kb, asked, wanted.top_k)), generation


def evaluate(
    settings: TrainSettings,
    asked: Items,
    models: Models,
    report: Report,
) -> Evaluation:
    """Ask all, compare, judge."""

    def measured(engine: Engine) -> Result:
        return measure(engine, asked, settings.eval, settings.room, report)

    before, said_before = measured(models.base)
    after, said_after = measured(models.candidate)
    compared = compare(before, after, settings.eval, settings.seed)
    beside = None
    if models.served:
        release = measured(models.served)[0]
        also = compare(release, after, settings.eval, settings.seed)
        beside = gate.Beside(models.served.name, tuple(also))
    runs = [after, *(measured(engine)[0] for engine in models.others.values())]
    return Evaluation(
        base=models.base.name,
        candidate=models.candidate.name,
        compared=tuple(compared),
        verdict=gate.judge(compared, beside, strict=settings.eval.strict),
        beside=beside,
        spread=tuple(spread(runs)) if models.others else (),
        answers=tuple((b, c.said, c.right) for b, c in zip(said_before, said_after, strict=True)),
    )


def measure(
    engine: Engine, asked: Items, settings: EvalSettings, room: int, report: Report
) -> Result:
    """Everything that is measured of one model. `room`: tokens for references in the prompt."""
    most = settings.max_tokens

    def bare(items: Sequence[Grounding]) -> int:
        return sum(bool(item.answers) for item in items)

    parts: Sequence[tuple[str, int, Callable[[], Result]]] = (
        (
            "from the knowledge base",
            len(asked.questions),
            lambda: judges.grounding(engine, asked.questions, room, most, "field"),
        ),
        (
            "without it",
            bare(asked.questions),
            lambda: judges.closed_book(engine, asked.questions, most, "field without retrieval"),
        ),
        (
            "from passages",
            len(asked.grounding),
            lambda: judges.grounding(engine, asked.grounding, room, most),
        ),
        (
            "without passages",
            bare(asked.grounding),
            lambda: judges.closed_book(engine, asked.grounding, most),
        ),
        ("multiple choice", len(asked.choice), lambda: judges.choice(engine, asked.choice)),
        ("maths", len(asked.maths), lambda: judges.maths(engine, asked.maths)),
        ("plain text", len(asked.text), lambda: judges.text(engine, asked.text)),
    )
    measures: list[Measure] = []
    answers: list[Answer] = []
    for name, count, ask in parts:
        if not count:
            continue
        report(f"{engine.name}: {count} items, {name}")
        some, said = ask()
        measures += some
        answers += said
    return measures, answers
