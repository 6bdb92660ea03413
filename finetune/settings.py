"""The configuration of a training run: one YAML file, read once, frozen.

Keys are LLaMA-Factory's where it has them. `data`, `eval` and `release` are sections of their own.
Unknown keys are refused with the nearest known one. Knows no defaults of models: `finetune.plan`
advises, the file decides.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from finetune.rows import Role
from kb.errors import BadConfiguration
from kb.settings import Section, nearest

Stage = Literal["pt", "sft", "rm", "dpo", "grpo"]
Method = Literal["full", "lora", "qlora", "ptuning"]
Format = Literal["alpaca", "sharegpt", "messages", "text", "feedback", "qa", "rows"]


class Source(Section):
    """A file of rows, and what they are for."""

    path: Path
    format: Format | Literal["auto"] = "auto"
    role: Role = "domain"
    ability: str = "chat"
    licence: str = ""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """How often each row counts beside rows of the same role."""
    most: Annotated[int | None, Field(ge=1)] = None
    """Rows taken at most, drawn by the seed."""


class Knowledge(Section):
    """Rows made from a live knowledge base with the serving retriever and prompt."""

    kb: str
    questions: Path | None = None
    """JSONL of {"question", "answers", "gold": [file names or passage ids]}; none: the engine at
    `engine_url` asks about passages."""
    engine_url: str = ""
    most: Annotated[int | None, Field(ge=1)] = None
    distractors: Annotated[int, Field(ge=0, le=20)] = 2
    """Wrong hits of the serving retriever beside the gold passage, 0 to this many a row."""
    refusals: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Share of rows whose gold passage is left out, so that refusing is right."""
    licence: str = ""


class DataSettings(Section):
    """`finetune data`: what rows come from, what is kept, how they are mixed."""

    sources: tuple[Source, ...] = ()
    knowledge: tuple[Knowledge, ...] = ()
    mix: Mapping[Role, Annotated[float, Field(ge=0)]] = {}
    """Shares of the roles in what is trained; empty: as many as there are."""
    languages: tuple[str, ...] = ()
    """Rows in other languages are dropped; empty: all stay."""
    near_duplicate: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Rows whose estimated Jaccard similarity is at least this are one row."""
    perplexity_outliers: Annotated[float, Field(ge=0)] = 0.0
    """Rows whose log perplexity under the base model is further than this many standard
    deviations from the mean are dropped; 0: not measured."""
    eval_files: tuple[Path, ...] = ()
    """What the model will be judged on: rows that overlap with it are removed."""
    val_size: Annotated[float, Field(ge=0, lt=0.5)] = 0.05
    """Share of the rows held out for the loss that stops a run."""


class EvalSettings(Section):
    """`finetune eval` and the gate."""

    grounding: tuple[Path, ...] = ()
    """Items as in `vademecum eval grounding`."""
    choice: tuple[Path, ...] = ()
    """Multiple choice: {"question", "choices", "answer"}."""
    maths: tuple[Path, ...] = ()
    """{"question", "answer"} whose answer ends in `#### NUMBER`."""
    text: tuple[Path, ...] = ()
    """Plain text for perplexity."""
    most: Annotated[int, Field(ge=1)] = 200
    """Items of each file at most, drawn by the seed."""
    margin: Annotated[float, Field(ge=0, le=1)] = 0.02
    """How much worse a general ability may be."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    seeds: tuple[int, ...] = ()
    """Runs of the same configuration with other seeds, whose spread is reported."""


class ReleaseSettings(Section):
    """How the release is to be served."""

    name: str = "release"
    evidence: Annotated[float | None, Field(ge=0, le=1)] = None
    context_tokens: Annotated[int | None, Field(ge=0)] = None
    quotes: Annotated[int | None, Field(ge=0, le=5)] = None


class TrainSettings(Section):
    """A whole configuration file."""

    model_name_or_path: Annotated[str, Field(min_length=1)]
    """`bundled:NAME`, a local folder or a hub id."""
    output_dir: Path
    """The run folder: data, checkpoints, curves, adapter or weights."""
    stage: Stage = "sft"
    finetuning_type: Method = "lora"
    dataset: Path | None = None
    """Rows to train on; none: `output_dir`/data, as `finetune data` writes it."""
    adapter_name_or_path: Path | None = None
    """An adapter to go on from (dpo after sft)."""
    reward_model: str = ""
    """grpo: a folder of a trained reward model; empty: rows' `answer` and citations are checked."""

    lora_rank: Annotated[int, Field(ge=1)] = 16
    lora_alpha: Annotated[int | None, Field(ge=1)] = None
    """None: twice the rank."""
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    lora_target: str = "all"
    """`all` linear layers, or names separated by commas."""
    num_virtual_tokens: Annotated[int, Field(ge=1)] = 20
    """P-tuning's prompt length."""

    cutoff_len: Annotated[int, Field(ge=16)] = 1024
    """Tokens of a row at most; longer rows are refused, never cut."""
    max_too_long: Annotated[float, Field(ge=0, le=1)] = 0.02
    """Share of rows that may be refused for their length before that is an error."""
    packing: bool = False
    per_device_train_batch_size: Annotated[int, Field(ge=1)] = 4
    gradient_accumulation_steps: Annotated[int, Field(ge=1)] = 4
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    num_train_epochs: Annotated[float, Field(gt=0)] = 2.0
    max_steps: int = -1
    lr_scheduler_type: str = "cosine"
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.05
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    optim: str = "adamw_torch"
    bf16: bool | None = None
    """None: where the processor or GPU has it."""
    gradient_checkpointing: bool = False
    neftune_noise_alpha: float | None = None
    logging_steps: Annotated[int, Field(ge=1)] = 10
    save_steps: Annotated[int, Field(ge=1)] = 100
    eval_steps: Annotated[int, Field(ge=1)] = 100
    save_total_limit: Annotated[int, Field(ge=1)] = 2
    patience: Annotated[int, Field(ge=0)] = 3
    """Evaluations without a better held-out loss before a run stops; 0: never."""
    resume_from_checkpoint: bool | Path = True
    """True: from the last whole checkpoint of `output_dir`, if there is one."""
    report_to: Literal["none", "tensorboard"] = "none"
    seed: int = 42

    beta: Annotated[float, Field(gt=0)] = 0.1
    """dpo, grpo: how closely the model is held to where it began."""
    num_generations: Annotated[int, Field(ge=2)] = 4
    """grpo: answers drawn for a prompt."""
    max_completion_length: Annotated[int, Field(ge=1)] = 128

    allow: tuple[str, ...] = ()
    """Ids of practice rules that may be broken here."""
    data: DataSettings = DataSettings()
    eval: EvalSettings = EvalSettings()
    release: ReleaseSettings = ReleaseSettings()

    @field_validator("output_dir")
    @classmethod
    def _home(cls, value: Path) -> Path:
        return value.expanduser()

    @model_validator(mode="after")
    def _fits(self) -> "TrainSettings":
        if self.finetuning_type == "ptuning" and self.packing:
            raise ValueError(
                "packing: P-tuning ignores where packed rows begin; set packing: false"
            )
        return self

    @property
    def alpha(self) -> int:
        return self.lora_alpha or 2 * self.lora_rank


def load(file: Path, sets: Sequence[str] = ()) -> TrainSettings:
    """Read YAML, with `--set key=value` (dots go into sections) over it. Relative paths are taken
    from the file's folder. Raises BadConfiguration that names file and key."""
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadConfiguration(f"{file}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadConfiguration(f"{file}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise BadConfiguration(f"{file}: holds no keys")
    for one in sets:
        _set(document, one)
    try:
        settings = TrainSettings.model_validate(document)
    except ValidationError as error:
        raise BadConfiguration(_explain(error, file)) from error
    resolved = _resolve(settings, file.resolve().parent)
    assert isinstance(resolved, TrainSettings)
    return resolved


def _set(document: dict[str, Any], one: str) -> None:
    key, separator, value = one.partition("=")
    if not separator or not key:
        raise BadConfiguration(f"--set {one}: must be key=value")
    *sections, name = key.strip().split(".")
    table = document
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise BadConfiguration(f"--set {one}: {section} is no section")
    try:
        table[name] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise BadConfiguration(f"--set {one}: not valid YAML") from error


def _resolve(value: Any, folder: Path) -> Any:
    """Every Path below, made absolute."""
    if isinstance(value, Path):
        path = value.expanduser()
        return path if path.is_absolute() else folder / path
    if isinstance(value, BaseModel):
        return value.model_copy(
            update={k: _resolve(getattr(value, k), folder) for k in type(value).model_fields}
        )
    if isinstance(value, tuple):
        return tuple(_resolve(one, folder) for one in value)
    return value


def _explain(error: ValidationError, file: Path) -> str:
    said = []
    for problem in error.errors():
        path = [str(part) for part in problem["loc"]]
        key = ".".join(path)
        if problem["type"] == "extra_forbidden":
            hint = nearest(path[-1], _fields(problem["loc"][:-1]))
            said.append(f"{file}: {key}: unknown key; {hint}")
        elif problem["type"] == "missing":
            said.append(f"{file}: {key} is missing")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            said.append(f"{file}: {key}: {message}" if key else f"{file}: {message}")
    return "\n".join(said)


def _fields(loc: Sequence[int | str]) -> list[str]:
    sections: dict[str, type[Section]] = {
        "data": DataSettings,
        "sources": Source,
        "knowledge": Knowledge,
        "eval": EvalSettings,
        "release": ReleaseSettings,
    }
    names = [part for part in loc if isinstance(part, str)]
    return list((sections[names[-1]] if names else TrainSettings).model_fields)
