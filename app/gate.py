"""The door: who is asking is settled before anything of a request is read.

Without keys, everyone on this machine is let in, and only this machine is listened to (`app.serve`
sees to that). Then a web page in the user's browser is the one stranger left: it could send forms
to the server (CSRF), or point a name of its own at 127.0.0.1 (DNS rebinding). Both show in the
`Origin` or `Host` header. Knows no route but those that are open to all.
"""

import ipaddress
from collections.abc import Callable
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Connection

from app.auth import OWNER, Caller, Keys, Scope
from app.errors import Forbidden, NoKey, reply
from kb.errors import VademecumError

OPEN = frozenset({"/", "/page.js", "/page.css", "/health/live", "/health/ready"})
"""Open to all: the page holds nothing, and asks for a key itself."""


class Gate:
    """ASGI: puts the caller into `request.state.caller`, or refuses."""

    def __init__(self, app: ASGIApp, keys: Keys, host: str) -> None:
        self._app = app
        self._keys = keys
        self._local = is_loopback(host)

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            caller = self._caller(scope["path"], Headers(scope=scope))
        except VademecumError as error:
            await reply(error)(scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = caller
        await self._app(scope, receive, send)

    def _caller(self, path: str, headers: Headers) -> Caller | None:
        if path in OPEN:
            return None
        # On an open address a key is needed even when the last one was revoked meanwhile.
        if self._local and not self._keys.list():
            _must_be_from_here(headers)
            return OWNER
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token.strip():
            raise NoKey("a key is needed: Authorization: Bearer ...")
        caller = self._keys.caller(token.strip())
        if caller is None:
            raise NoKey("this key is not known")
        return caller


def _may(scope: Scope) -> Callable[[Request], Caller]:
    def check(request: Request) -> Caller:
        caller: Caller = request.state.caller
        if not caller.may(scope):
            raise Forbidden(f"this needs a key of scope {scope}; yours has {caller.scope}")
        return caller

    return check


Chatting = Annotated[Caller, Depends(_may("chat"))]
Writing = Annotated[Caller, Depends(_may("write"))]
Administering = Annotated[Caller, Depends(_may("admin"))]
"""The types of a route's parameter that holds a caller who may do this much."""


def is_loopback(host: str) -> bool:
    """Whether an address (or `localhost`) can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _must_be_from_here(headers: Headers) -> None:
    for name, value in (
        ("Host", f"//{headers.get('host', '')}"),
        ("Origin", headers.get("origin")),
    ):
        if value is not None and not is_loopback(_hostname(value)):
            raise Forbidden(
                f"the {name} of this request is not this machine; make a key to be reached from"
                " elsewhere (vademecum keys create)"
            )


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # a broken IPv6 address
        return ""
