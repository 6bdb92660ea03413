"""The configuration of a training run: one YAML file, read once, frozen.

Keys are LLaMA-Factory's where it has them. `data`, `eval` and `release` are sections of their own.
Unknown keys are refused with the nearest known one. Of models it knows the room for references
alone: for the rest `finetune.plan` advises, and the file decides.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from finetune.data_settings import DataSettings, Knowledge, Source
from kb.errors import BadConfiguration
from kb.models import context_tokens
from kb.settings import Section, nearest

Stage = Literal["pt", "sft", "rm", "dpo", "grpo"]
Method = Literal["full", "lora", "qlora", "ptuning"]
_VARIABLE = re.compile(r"\$\{(\w+)\}")


class EvalSettings(Section):
    """`finetune eval` and the gate."""

    questions: tuple[Path, ...] = ()
    """The field's questions, asked over what the retriever finds in `kb`: {"question", "answers",
    "gold": [file names]}; `"gold": []`: to be refused."""
    kb: str = ""
    """The live knowledge base that `questions` are asked of."""
    top_k: Annotated[int, Field(ge=1, le=50)] = 8
    """Passages that are retrieved for each of them, as `[app] top_k` says for serving."""
    grounding: tuple[Path, ...] = ()
    """Items that bring their passages, as in `vademecum eval grounding`."""
    choice: tuple[Path, ...] = ()
    """Multiple choice: {"question", "choices", "answer"}."""
    maths: tuple[Path, ...] = ()
    """{"question", "answer"} whose answer ends in `#### NUMBER`."""
    text: tuple[Path, ...] = ()
    """Plain text for perplexity."""
    most: Annotated[int, Field(ge=1)] = 200
    """Items of each file at most, drawn by the seed."""
    margin: Annotated[float, Field(ge=0, le=1)] = 0.02
    """How much worse a general ability may be, and each part of the field."""
    perplexity_margin: Annotated[float, Field(ge=0, le=1)] = 0.05
    """How much higher the perplexity of plain text may be."""
    against: str = "current"
    """The release that it must not be shown to be worse than: `current`, the one that is served;
    an id; or `base`, for none. Only one of the same base and prompt can be asked the same."""
    strict: bool = False
    """Whether the interval, not only the estimate, must stay within the margin."""
    languages: tuple[str, ...] = ()
    """Questions and items in other languages are left out; empty: those of `data.languages`."""
    max_tokens: Annotated[int, Field(ge=1)] = 96
    """Of an answer from passages."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    seeds: tuple[int, ...] = ()
    """Runs of the same configuration with other seeds, whose spread is reported."""

    @model_validator(mode="after")
    def _asked_of(self) -> "EvalSettings":
        if self.questions and not self.kb:
            raise ValueError("kb: missing; questions are asked of a knowledge base")
        return self


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
    reward_model: Path | None = None
    """grpo: a folder of a trained reward model; none: rows' `answer` and citations are checked."""

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
    max_steps: Annotated[int, Field(ge=-1)] = -1
    """-1: `num_train_epochs` decides."""
    lr_scheduler_type: str = "cosine"
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.05
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    optim: str = "adamw_torch_fused"
    bf16: bool | None = None
    """None: where the processor or GPU has it."""
    gradient_checkpointing: bool = False
    neftune_noise_alpha: float | None = None
    logging_steps: Annotated[int, Field(ge=1)] = 10
    save_steps: Annotated[int, Field(ge=1)] = 100
    """Beside these, every better held-out loss is kept."""
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

    @field_validator("resume_from_checkpoint", mode="before")
    @classmethod
    def _from(cls, value: Any) -> Any:
        if value is None:  # as LLaMA-Factory's examples have it
            return True
        if not isinstance(value, bool | str | Path):
            raise ValueError(f"{value!r} is neither true, false nor the folder of a checkpoint")
        return value

    @model_validator(mode="after")
    def _fits(self) -> "TrainSettings":
        if self.max_steps == 0:
            raise ValueError("max_steps: 0 trains nothing; with -1 num_train_epochs decides")
        if self.packing and self.stage not in ("pt", "sft"):
            raise ValueError(f"packing: stage {self.stage} packs no rows; set packing: false")
        if self.finetuning_type == "ptuning" and self.packing:
            raise ValueError(
                "packing: P-tuning ignores where packed rows begin; set packing: false"
            )
        return self

    @property
    def alpha(self) -> int:
        return self.lora_alpha or 2 * self.lora_rank

    @property
    def room(self) -> int:
        """Tokens for references in the prompt: of rows, of what is judged, of what is served."""
        return self.release.context_tokens or context_tokens(self.model_name_or_path)


def load(
    file: Path, sets: Sequence[str] = (), environ: Mapping[str, str] = os.environ
) -> TrainSettings:
    """Read YAML, with `--set key=value` (dots go into sections) over it, and `${NAME}` from the
    environment. Relative paths are taken from the file's folder, but for the base's: a release is
    held against `[engine] model` by the name that is written. Raises BadConfiguration that names
    file and key."""
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
    document = _expanded(document, environ, file)
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


def _expanded(value: Any, environ: Mapping[str, str], file: Path) -> Any:
    """Every text below, with its `${NAME}` replaced."""

    def variable(found: re.Match[str]) -> str:
        if found[1] not in environ:
            raise BadConfiguration(f"{file}: {found[0]}: no such environment variable")
        return environ[found[1]]

    if isinstance(value, str):
        return _VARIABLE.sub(variable, value)
    if isinstance(value, dict):
        return {key: _expanded(one, environ, file) for key, one in value.items()}
    return [_expanded(one, environ, file) for one in value] if isinstance(value, list) else value


def _resolve(value: Any, folder: Path) -> Any:
    """Every Path below, made absolute, without its `..`."""
    if isinstance(value, Path):
        return Path(os.path.normpath(folder / value.expanduser()))
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
