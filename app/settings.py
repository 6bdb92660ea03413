"""The settings of the server and of the engine it speaks to."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from kb.settings import Section


class EngineSettings(Section):
    """The language model: one that `vademecum up` starts, or a running one (`url`)."""

    model: Annotated[str, Field(min_length=1)] = "bundled:smollm2-135m-instruct"
    """`bundled:NAME`, a local folder, a hub id; or the model's name at `url`."""
    url: str = ""
    """Base URL of a running OpenAI-compatible engine; empty: start vLLM here."""
    key: str = ""
    """Bearer key for `url`."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8001
    """Loopback port of the engine that is started here."""
    max_model_len: Annotated[int, Field(ge=512)] = 4096
    """Tokens of prompt and answer together."""
    kv_cache_gb: Annotated[int, Field(ge=1)] = 1
    """Memory for attention keys and values (CPU engine)."""
    max_streams: Annotated[int, Field(ge=1)] = 16
    """Answers generated at the same time."""
    extra_args: tuple[str, ...] = ()
    """Further arguments for vLLM's server, as they are."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 120.0
    """How long the engine may be silent within an answer."""
    runtime_adapters: Literal["auto"] | bool = "auto"
    """Whether an adapter is loaded into the running engine; else a second engine starts with merged
    weights. auto: on a GPU, and at `url`."""
    max_adapter_rank: Literal[8, 16, 32, 64, 128, 256, 320, 512] = 64
    """Highest rank that a runtime adapter may have (of the engine that is started here)."""
    start_seconds: Annotated[float, Field(gt=0)] = 1800.0
    """How long a promotion waits for the release's engine. Beside a busy one on two cores that can
    take ten times what it takes alone."""
    keep_seconds: Annotated[float, Field(ge=0)] = 3600.0
    """How long the engine of the release before is kept for a rollback."""

    @field_validator("url")
    @classmethod
    def _base(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        return value.rstrip("/").removesuffix("/v1")


class AppSettings(Section):
    """The server: where it listens and how it answers."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    top_k: Annotated[int, Field(ge=1, le=50)] = 8
    """Passages that are retrieved for a question."""
    context_tokens: Annotated[int, Field(ge=0, le=100_000)] = 0
    """Room for references in the prompt, in estimated tokens; 0: what suits the model."""
    quotes: Annotated[int, Field(ge=-1, le=5)] = -1
    """Sentences of the passages beside an answer; -1: what suits the model."""
    evidence: Annotated[float, Field(ge=-1, le=1)] = -1.0
    """Refuse when the estimated chance that the passages hold the answer is below this; -1: what
    suits the model."""
    max_answer_tokens: Annotated[int, Field(ge=16)] = 400
    """Default length of an answer, where the request names none."""
    max_upload_mb: Annotated[int, Field(ge=1)] = 64
    max_question_chars: Annotated[int, Field(ge=100)] = 32_000
    max_waiting: Annotated[int, Field(ge=1)] = 64
    """Answers under way at once; more are refused with 429."""
