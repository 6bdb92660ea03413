"""What is known of a run before it starts: the one argument of every practice rule. Pure.

Whoever measures something fills it in; what nobody measured stays None, and no rule guesses.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from finetune.rows import Row
from finetune.settings import TrainSettings

BILLION = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Counts:
    """The rows of a run, counted by what they are for."""

    roles: Mapping[str, int] = field(default_factory=dict)
    abilities: Mapping[str, int] = field(default_factory=dict)
    languages: Mapping[str, int] = field(default_factory=dict)
    """ISO 639-1; rows that do not say are not in it."""
    with_passages: int = 0
    """Rows whose prompt shows passages, as the server's does."""

    @property
    def rows(self) -> int:
        return sum(self.roles.values())

    def share(self, role: str) -> float:
        return self.roles.get(role, 0) / self.rows if self.rows else 0.0


@dataclass(frozen=True, slots=True)
class Facts:
    """A run, its model, its machine and its data."""

    settings: TrainSettings
    counts: Counts = field(default_factory=Counts)
    parameters: int | None = None
    """Of the base model."""
    languages: tuple[str, ...] = ()
    """That the base model is known to write; empty: not known, or all."""
    full_fits: bool | None = None
    """Whether full tuning would fit into the memory at hand."""
    lora_fits: bool | None = None
    """Whether LoRA over unquantized weights would."""
    noisy: int | None = None
    """Rows of repetition, mojibake, the wrong language."""
    duplicates: int | None = None
    unlike: int | None = None
    """Rows that do not fit the base model: template fragments."""

    linear: tuple[str, ...] = ()
    """Names of the base's linear layers; empty: not known."""

    @property
    def epochs(self) -> float:
        """How often the run sees each row; packed rows are more to a step than this counts."""
        run = self.settings
        if run.max_steps < 0 or not self.counts.rows:
            return run.num_train_epochs
        step = run.per_device_train_batch_size * run.gradient_accumulation_steps
        answers = run.num_generations if run.stage == "grpo" else 1
        return run.max_steps * step / answers / self.counts.rows

    @property
    def billions(self) -> float | None:
        return None if self.parameters is None else self.parameters / BILLION


def count(rows: Iterable[Row]) -> Counts:
    """Count rows by role, ability and language."""
    roles: dict[str, int] = {}
    abilities: dict[str, int] = {}
    languages: dict[str, int] = {}
    with_passages = 0
    for row in rows:
        roles[row.role] = roles.get(row.role, 0) + 1
        abilities[row.ability] = abilities.get(row.ability, 0) + 1
        if row.language:
            languages[row.language] = languages.get(row.language, 0) + 1
        with_passages += bool(row.origin.chunks) or row.ability == "grounding"
    return Counts(roles, abilities, languages, with_passages)
