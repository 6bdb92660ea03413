"""Base against candidate, on the same items, with retrieval on and off: the story of an evaluation.

Everything is asked of both models through the same judges; the comparison is paired, and the gate
speaks last. Knows no files of reports (`finetune.report`) and loads no weights (`finetune.local`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune import gate, judges
from finetune.compare import Compared, Spread, compare, spread
from finetune.engines import Engine
from finetune.items import Choice, Grounding, Maths, One, drawn, drawn_evenly, read, read_text
from finetune.judges import Answer, Measure, Result
from finetune.settings import EvalSettings, TrainSettings
from kb.errors import BadConfiguration
from kb.models import context_tokens

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Items:
    """What both models are asked."""

    grounding: tuple[Grounding, ...] = ()
    choice: tuple[Choice, ...] = ()
    maths: tuple[Maths, ...] = ()
    text: tuple[str, ...] = ()

    def counts(self) -> dict[str, int]:
        return {name: len(getattr(self, name)) for name in ("grounding", "choice", "maths", "text")}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What came of it."""

    base: str
    candidate: str
    compared: tuple[Compared, ...]
    verdict: gate.Verdict
    spread: tuple[Spread, ...]
    """Over the candidate and its runs with other seeds; empty without such."""
    answers: tuple[tuple[Answer, str, bool], ...]
    """The base's answer, what the candidate said to the same, and whether that was right."""


def items(settings: TrainSettings, limit: int | None = None) -> Items:
    """The items of a configuration, drawn by its seed. Raises BadData, and BadConfiguration if
    nothing is named."""
    wanted, seed = settings.eval, settings.seed
    most = limit or wanted.most
    languages = wanted.languages or settings.data.languages
    questions: list[Grounding] = []
    for file in wanted.grounding:
        found = [i for i in read(file, Grounding) if not languages or i.language in languages]
        questions += drawn_evenly(found, most, seed)

    def some(files: Sequence[Path], read_one: Callable[[Path], Sequence[One]]) -> tuple[One, ...]:
        return tuple(item for file in files for item in drawn(read_one(file), most, seed))

    made = Items(
        grounding=tuple(questions),
        choice=some(wanted.choice, lambda file: read(file, Choice)),
        maths=some(wanted.maths, lambda file: read(file, Maths)),
        text=some(wanted.text, read_text),
    )
    if not any(made.counts().values()):
        raise BadConfiguration("eval: names no items (grounding, choice, maths, text)")
    return made


def evaluate(
    settings: TrainSettings,
    asked: Items,
    base: Engine,
    candidate: Engine,
    others: Mapping[int, Engine],
    report: Report,
) -> Evaluation:
    """Ask both, compare, judge. `others` are runs of the same configuration by their seed."""
    room = settings.release.context_tokens or context_tokens(settings.model_name_or_path)

    def measured(engine: Engine) -> Result:
        return measure(engine, asked, settings.eval, room, report)

    before, said_before = measured(base)
    after, said_after = measured(candidate)
    runs = [after, *(measured(engine)[0] for engine in others.values())]
    compared = compare(before, after, settings.eval, settings.seed)
    return Evaluation(
        base=base.name,
        candidate=candidate.name,
        compared=tuple(compared),
        verdict=gate.judge(compared, strict=settings.eval.strict),
        spread=tuple(spread(runs)) if others else (),
        answers=tuple((b, c.said, c.right) for b, c in zip(said_before, said_after, strict=True)),
    )


def measure(
    engine: Engine, asked: Items, settings: EvalSettings, room: int, report: Report
) -> Result:
    """Everything that is measured of one model. `room`: tokens for references in the prompt."""
    most = settings.max_tokens
    parts: Sequence[tuple[str, int, Callable[[], Result]]] = (
        (
            "from passages",
            len(asked.grounding),
            lambda: judges.grounding(engine, asked.grounding, room, most),
        ),
        (
            "without passages",
            sum(bool(item.answers) for item in asked.grounding),
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
