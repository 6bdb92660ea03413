"""The `data` section of a configuration: what rows come from, what is kept, how they are mixed."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from finetune.rows import Role
from kb.settings import Section

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
    longest: Annotated[int | None, Field(ge=1)] = None
    """Characters of a row at most: a small model learns more from short ones."""
    most: Annotated[int | None, Field(ge=1)] = None
    """Rows taken at most, drawn by the seed."""

    @property
    def name(self) -> str:
        """How reports and a release's manifest call it."""
        return _called(self.path)


class Knowledge(Section):
    """Rows made from a knowledge base with the serving retriever and prompt: a live one (`kb`), or
    one that is made of a `collection` of passages for this purpose."""

    kb: str = ""
    collection: Path | None = None
    """A folder with corpus.jsonl (and queries.jsonl, qrels.tsv), a JSONL of items with their own
    passages ({"question", "answers", "passages": [{"id", "text"}], "gold": [ids]}), or texts."""
    ask: Literal["given", "rules", "engine"] = "given"
    """Where questions come from: `given` with the data; from passages, by `rules` (English) or by
    the model at `engine_url`."""
    questions: Path | None = None
    """JSONL of {"question", "answers", "gold": [file names or passage ids]}; none: the
    collection's own."""
    engine_url: str = ""
    engine_model: str = "vademecum"
    language: str = ""
    """Of `questions` that hold several: `question_en` is read with `en`."""
    cues: Mapping[str, str] = {}
    """For questions without answers: pattern of a question -> pattern of the sentence of its gold
    passage that answers it, in which `{title}` is the passage's. The first that matches counts;
    without a cue, a question is answered by a gold passage of one sentence."""
    most: Annotated[int | None, Field(ge=1)] = None
    """Questions at most, drawn by the seed."""
    most_passages: Annotated[int | None, Field(ge=1)] = None
    """Passages of a collection at most: those that the questions need, others to fill up."""
    copies: Annotated[int, Field(ge=1, le=20)] = 1
    """Rows a question, each with other distractors; fewer where no more prompts differ."""
    distractors: Annotated[int, Field(ge=0, le=20)] = 2
    """Wrong hits of the serving retriever beside the gold passage, or beside one in its place, 0 to
    this many a row."""
    refusals: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Share of rows whose gold passage is left out, so that refusing is right. They show as many
    passages as they would with it."""
    set_aside: bool = False
    """Whether answers begin with the references that they do not use, or with `none`
    (ChatLaw's self-suggestion; `kb.prompt.set_aside`). A refusal uses none and says so without."""
    role: Role = "domain"
    weight: Annotated[float, Field(gt=0)] = 1.0
    licence: str = ""

    @model_validator(mode="after")
    def _one(self) -> "Knowledge":
        if bool(self.kb) == bool(self.collection):
            raise ValueError("needs either kb or collection")
        if self.kb and self.ask == "given" and not self.questions:
            raise ValueError("questions: missing; or set ask to rules or engine")
        if self.ask == "engine" and not self.engine_url:
            raise ValueError("engine_url: missing, and ask is engine")
        for pattern in (*self.cues, *self.cues.values()):
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"cues: {pattern!r} is no pattern: {error}") from error
        return self

    @property
    def name(self) -> str:
        """How reports, rows and a release's manifest call it."""
        return self.kb or _called(Path(str(self.collection)))


def _called(path: Path) -> str:
    """With the folder that it is in: many a data set's file is called `train.jsonl`."""
    return "/".join(path.parts[-2:])


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

    @field_validator("mix")
    @classmethod
    def _shared(cls, value: Mapping[Role, float]) -> Mapping[Role, float]:
        if value and not sum(value.values()):
            raise ValueError("no role has a share")
        return value
