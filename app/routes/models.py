"""GET /v1/models: `vademecum`, every loaded release by id, and the base model if loaded."""

from typing import Any

from fastapi import APIRouter, Request

from app.errors import UnknownModel
from app.gate import Chatting
from app.parts import parts

router = APIRouter()


@router.get("/v1/models")
async def models(request: Request, caller: Chatting) -> dict[str, Any]:
    return {"object": "list", "data": [_model(name) for name in _names(request)]}


@router.get("/v1/models/{name:path}")
async def model(name: str, request: Request, caller: Chatting) -> dict[str, Any]:
    if name not in _names(request):
        raise UnknownModel(f"there is no model {name!r}; see /v1/models")
    return _model(name)


def _names(request: Request) -> list[str]:
    return parts(request).lineup.names()


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "vademecum"}
