"""One table: error -> HTTP status, type and code; and OpenAI's error shape for everything.

    Permanent                     (kb.errors)
    ├── BadRequest                a field of the request; `param` names it
    ├── NoKey                     no key, or one that is not known
    ├── Forbidden                 the key's scope does not reach this far
    ├── UnknownModel              not one of /v1/models
    ├── UnknownRelease            no release of this id
    ├── NotPromotable             a release that may not be served here, and why
    ├── PromotionUnderWay         one at a time
    ├── UnknownFile               no such file that this key may see
    ├── NotRemovable              a file of a watched folder: the folder decides
    ├── TooLarge                  an upload or body above the limit
    └── UnsupportedType           a file whose name says that it is no document
    Transient
    ├── Busy                      too many answers under way
    ├── PromotionFailed           a release's engine did not come up, or is not what it should be
    └── ClientGone                nobody is left to answer

A message reaches the client only if it is fit for one: never a stack trace, never a server path.
Knows no route.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from kb import errors as kb

log = logging.getLogger(__name__)


class BadRequest(kb.Permanent):
    """A field of the request is wrong; `param` is its dotted name."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class NoKey(kb.Permanent):
    """The request carries no key, or one that is not known."""


class Forbidden(kb.Permanent):
    """The key is known and may not do this."""


class UnknownModel(kb.Permanent):
    """The model is not one of /v1/models."""


class UnknownRelease(kb.Permanent):
    """There is no release of this id."""


class NotPromotable(kb.Permanent):
    """A release may not be served here; the message says why."""


class PromotionUnderWay(kb.Permanent):
    """Another release is being promoted or rolled back."""


class UnknownFile(kb.Permanent):
    """There is no such file, or the key may not see it: nobody can tell which."""


class UnknownCompletion(kb.Permanent):
    """No answer of this id is remembered, or it was given to another key."""


class AlreadyRated(kb.Permanent):
    """An answer is rated once."""


class NotRemovable(kb.Permanent):
    """A file of a watched folder; it goes when it is deleted there."""


class TooLarge(kb.Permanent):
    """The request's body, or a file in it, is above the limit."""


class UnsupportedType(kb.Permanent):
    """The file's name says that it is no document."""


class PromotionFailed(kb.Transient):
    """A release did not come to answer, or answers as the base does. What was served still is."""


class Busy(kb.Transient):
    """Too many answers are under way."""


class ClientGone(kb.Transient):
    """The client hung up before it was answered."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How an error is told. `say` replaces messages for the operator; `retry` is seconds."""

    status: int
    type: str
    code: str
    say: str = ""
    retry: int = 0


_ASK = "invalid_request_error"
_OURS = "server_error"
_INTERNAL = Shape(500, _OURS, "internal_error", "internal error")
# The first row whose class fits an error is its shape.
TABLE: tuple[tuple[type[kb.VademecumError], Shape], ...] = (
    (BadRequest, Shape(400, _ASK, "invalid_value")),
    (kb.BadData, Shape(400, _ASK, "invalid_value")),
    (NoKey, Shape(401, "authentication_error", "invalid_api_key")),
    (Forbidden, Shape(403, "permission_error", "forbidden")),
    (kb.UnknownKnowledgeBase, Shape(404, _ASK, "vector_store_not_found")),
    (UnknownModel, Shape(404, _ASK, "model_not_found")),
    (UnknownRelease, Shape(404, _ASK, "release_not_found")),
    (UnknownFile, Shape(404, _ASK, "file_not_found")),
    (UnknownCompletion, Shape(404, _ASK, "completion_not_found")),
    (kb.AlreadyExists, Shape(409, _ASK, "already_exists")),
    (AlreadyRated, Shape(409, _ASK, "already_rated")),
    (kb.GateClosed, Shape(409, _ASK, "gate_closed")),
    (NotPromotable, Shape(409, _ASK, "not_promotable")),
    (PromotionUnderWay, Shape(409, _ASK, "promotion_under_way")),
    (NotRemovable, Shape(409, _ASK, "file_not_removable")),
    (kb.NotYet, Shape(409, _ASK, "generation_not_reached", retry=1)),
    (kb.WriterBusy, Shape(409, _ASK, "busy", "this knowledge base is being written", retry=5)),
    (TooLarge, Shape(413, _ASK, "too_large")),
    (UnsupportedType, Shape(415, _ASK, "unsupported_type")),
    (kb.Unreadable, Shape(422, _ASK, "unreadable")),
    (Busy, Shape(429, "rate_limit_error", "busy", retry=2)),
    (ClientGone, Shape(499, _ASK, "client_gone")),  # nginx's status; seen only in metrics
    (PromotionFailed, Shape(503, _OURS, "promotion_failed")),
    (kb.EngineDown, Shape(503, _OURS, "engine_down", retry=5)),
    (
        kb.EmbedderDown,
        Shape(503, _OURS, "embedder_down", "the embedder does not answer right now", retry=5),
    ),
    (
        kb.StoreBroken,
        Shape(503, _OURS, "knowledge_base_broken", "this knowledge base cannot be used right now"),
    ),
    (
        kb.StoreDown,
        Shape(503, _OURS, "knowledge_base_down", "this knowledge base is busy or out of disk", 5),
    ),
    (kb.VademecumError, _INTERNAL),
)
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def shape_of(error: Exception) -> Shape:
    return next((shape for kind, shape in TABLE if isinstance(error, kind)), _INTERNAL)


def describe(error: Exception) -> dict[str, Any]:
    """OpenAI's error object. What is ours is logged here, with what the client is not told."""
    shape = shape_of(error)
    if shape.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        because = f" ({error.__cause__!r})" if error.__cause__ else ""
        trace = error if shape is _INTERNAL else None
        log.error("%s: %s%s", shape.code, error, because, exc_info=trace)
    code = error.code if isinstance(error, kb.Unreadable) else shape.code
    param = error.param if isinstance(error, BadRequest) else None
    return _object(shape.say or str(error), shape.type, code, param)


def reply(error: Exception) -> JSONResponse:
    shape = shape_of(error)
    headers = {"Retry-After": str(shape.retry)} if shape.retry else {}
    if isinstance(error, NoKey):
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(describe(error), shape.status, headers)


def install(app: FastAPI) -> None:
    """Every error that leaves a route becomes a reply in this shape."""

    async def known(request: Request, error: Exception) -> JSONResponse:
        return reply(error)

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return reply(_first_problem(error))

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return _of_http(request, error)

    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        # Starlette raises it again after this reply, and uvicorn logs it with its traceback.
        return JSONResponse(_object(_INTERNAL.say, _OURS, _INTERNAL.code), 500)

    app.add_exception_handler(kb.VademecumError, known)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unexpected)


def _object(message: str, kind: str, code: str, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "code": code, "param": param}}


def _first_problem(error: RequestValidationError) -> BadRequest:
    problem: Mapping[str, Any] = error.errors()[0]
    if problem["type"] == "json_invalid":
        return BadRequest("the body is not valid JSON")
    where = [str(part) for part in problem["loc"][1:]]
    at = "".join(f"[{part}]" if part.isdecimal() else f".{part}" for part in where).lstrip(".")
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not where:
        return BadRequest(
            f"the body must be a JSON object (Content-Type: application/json): {message}"
        )
    return BadRequest(f"{at}: {message}", at)


def _of_http(request: Request, error: HTTPException) -> JSONResponse:
    """What Starlette itself refuses: unknown routes, methods, broken forms."""
    if error.status_code == HTTPStatus.NOT_FOUND:
        message = f"there is no {request.method} {request.url.path}"
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        message = f"{request.method} is not possible here"
    else:
        message = str(error.detail)
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    body = _object(message, _TYPES.get(error.status_code, _ASK), code)
    return JSONResponse(body, error.status_code, error.headers)
