"""What a run will need of this machine, for each method: rows and shape -> estimates. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finetune import lengths
from finetune.lengths import Sized
from finetune.memory import GB, MARGIN, Batch, Estimate, Machine, estimate
from finetune.rows import Row
from finetune.settings import Method, TrainSettings
from finetune.shape import Shape

METHODS: tuple[Method, ...] = ("full", "lora", "qlora")


@dataclass(frozen=True, slots=True)
class Outlook:
    """A machine, a run's heaviest batch, and what each method would take with it."""

    machine: Machine
    batch: Batch
    heaviest: tuple[Row, ...]
    """The rows of `batch`; packed, as many as fill it."""
    common: tuple[Row, ...]
    """As many of common length."""
    run: Estimate
    needs: Mapping[Method, Estimate]

    def fits(self, method: Method) -> bool:
        """With room for what the estimate may be off."""
        return self.needs[method].total * MARGIN <= self.machine.available

    @property
    def enough(self) -> bool:
        """Whether the run as configured may begin here."""
        return self.run.total <= self.machine.available


def of(run: TrainSettings, shape: Shape, rows: Sequence[Sized], on: Machine) -> Outlook:
    """`rows`: at least one, in their order."""

    def weigh(batch: Batch) -> int:
        return estimate(shape, run, batch, on).total

    batch, heavy = lengths.heaviest(rows, run, weigh)
    common = lengths.typical(rows, run.per_device_train_batch_size)
    needs = {
        method: estimate(shape, run.model_copy(update={"finetuning_type": method}), batch, on)
        for method in METHODS
    }
    return Outlook(on, batch, tuple(heavy), tuple(common), estimate(shape, run, batch, on), needs)


def too_little(run: TrainSettings, shape: Shape, seen: Outlook) -> str:
    """What a run that does not fit needs, and the smallest change with which it would."""
    have = seen.machine.available
    text = (
        f"too little memory: batches of {seen.batch.rows} x {seen.batch.length} tokens need about"
        f" {gb(seen.run.total)}, {gb(have)} are free"
    )
    for changed, size in _smaller(run):
        batch = _part(seen.batch, size)
        needed = estimate(shape, changed, batch, seen.machine).total
        if needed * MARGIN <= have:
            keys = [k for k in _KEYS if getattr(changed, k) != getattr(run, k)]
            said = ", ".join(f"{k}: {_yaml(getattr(changed, k))}" for k in keys)
            return f"{text}; with {said} it would be {gb(needed)}"
    return f"{text}; leave the longest rows out (cutoff_len), or take a smaller model"


_KEYS = (
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "finetuning_type",
)
_LIGHTER: Mapping[Method, tuple[Method, ...]] = {"full": ("lora", "qlora"), "lora": ("qlora",)}


def _smaller(run: TrainSettings) -> list[tuple[TrainSettings, int]]:
    """Runs that need less, what costs least first, each with its rows a batch: smaller batches
    (as many rows a step), activations computed twice, another method."""
    step = run.per_device_train_batch_size * run.gradient_accumulation_steps
    sizes = [run.per_device_train_batch_size]
    while sizes[-1] > 1:
        sizes.append(sizes[-1] // 2)
    methods: list[Method] = [run.finetuning_type]
    methods += _LIGHTER.get(run.finetuning_type, ())
    return [
        (
            run.model_copy(
                update={
                    "per_device_train_batch_size": size,
                    "gradient_accumulation_steps": max(1, step // size),
                    "gradient_checkpointing": again,
                    "finetuning_type": method,
                }
            ),
            size,
        )
        for method in methods
        for again in (run.gradient_checkpointing, True)
        for size in sizes
    ]


def _part(batch: Batch, size: int) -> Batch:
    trained = -(-batch.trained * size // batch.rows) if size < batch.rows else batch.trained
    return Batch(min(size, batch.rows), batch.length, trained, batch.padded)


def gb(size: int) -> str:
    return f"{size / GB:.1f} GB" if size >= GB / 10 else f"{size / 2**20:.0f} MB"


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
