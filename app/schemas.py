"""What clients may send, field by field. Knows nothing of what is done with it.

Types are strict (`"5"` is no number). Unknown fields are ignored where OpenAI's servers ignore
them, so that clients made for other servers work; in the fields that are ours they are refused.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from app.errors import BadRequest
from kb.search import Mode

Penalty = Annotated[float, Field(ge=-2, le=2)]
Tokens = Annotated[int, Field(ge=1)]
Strings = Annotated[list[str], BeforeValidator(lambda v: [v] if isinstance(v, str) else v)]
"""One string, or a list of them."""
_UNSUPPORTED = (
    "tools", "tool_choice", "functions", "function_call", "logprobs", "top_logprobs", "audio",
    "prediction", "logit_bias", "web_search_options",
)  # fmt: skip


class Lenient(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class Ours(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class Message(Lenient):
    role: Literal["system", "developer", "user", "assistant"]
    content: str = ""

    @field_validator("content", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        """A list of parts is their text; an assistant's null is nothing."""
        if value is None:
            return ""
        if not isinstance(value, list):
            return value
        if not all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in value):
            raise ValueError("a string or a list of text parts is expected; nothing else is read")
        return "".join(part["text"] for part in value)


class Knowledge(Ours):
    """Ours: where answers come from."""

    enabled: bool = True
    vector_store_ids: Annotated[list[str], Field(min_length=1, max_length=100)] | None = None
    top_k: Annotated[int, Field(ge=1, le=50)] | None = None
    min_generation: Annotated[int, Field(ge=0)] = 0


class StreamOptions(Lenient):
    include_usage: bool = False


class Chat(Lenient):
    """POST /v1/chat/completions."""

    model: str
    messages: Annotated[list[Message], Field(min_length=1)]
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stop: Annotated[Strings, Field(max_length=4)] | None = None
    seed: int | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    n: Literal[1] | None = None
    response_format: dict[str, Any] | None = None
    knowledge: Knowledge | None = None

    @model_validator(mode="before")
    @classmethod
    def _supported(cls, body: Any) -> Any:
        for name in _UNSUPPORTED if isinstance(body, dict) else ():
            if body.get(name) not in (None, False, [], {}, 0, "none", "auto"):
                raise BadRequest(f"{name} is not supported by this server", name)
        return body

    @field_validator("response_format")
    @classmethod
    def _only_text(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None and value.get("type") != "text":
            raise ValueError("only answers of type text are supported")
        return value


class Embeddings(Lenient):
    """POST /v1/embeddings. `input_type` is ours: E5 models embed the two differently."""

    model: str
    input: Annotated[Strings, Field(min_length=1, max_length=2048)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    input_type: Literal["query", "passage"] = "passage"


class NewVectorStore(Lenient):
    """POST /v1/vector_stores."""

    name: str | None = None
    file_ids: Annotated[list[str], Field(max_length=500)] = []


class Attachment(Lenient):
    """POST /v1/vector_stores/{id}/files."""

    file_id: str


class NewBatch(Lenient):
    """POST /v1/vector_stores/{id}/file_batches."""

    file_ids: Annotated[list[str], Field(min_length=1, max_length=500)]


class RankingOptions(Lenient):
    score_threshold: float | None = None


class Search(Lenient):
    """POST /v1/vector_stores/{id}/search. `mode` and `min_generation` are ours."""

    query: Annotated[Strings, Field(min_length=1, max_length=16)]
    max_num_results: Annotated[int, Field(ge=1, le=50)] = 10
    ranking_options: RankingOptions | None = None
    filters: None = None
    mode: Mode = "hybrid"
    min_generation: Annotated[int, Field(ge=0)] = 0


class Rated(Ours):
    """POST /v1/feedback."""

    completion_id: str
    rating: Literal["up", "down"]
    comment: Annotated[str, Field(max_length=10_000)] = ""
    correction: Annotated[str, Field(max_length=10_000)] = ""
    """What the answer should have been."""


class Promotion(Ours):
    """POST /admin/releases/{id}/promote. `force` serves a release whose gate said no."""

    force: bool = False
