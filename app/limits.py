"""How much is taken on at once: answers under way, and bytes of a request's body.

Knows nothing of what is asked.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import Busy, TooLarge, reply


class Places:
    """Places for answers; used on the event loop only, so a counter is enough."""

    def __init__(self, places: int) -> None:
        self._places = places
        self.taken = 0

    @contextmanager
    def take(self) -> Iterator[None]:
        """Hold a place. Raises Busy at once when there is none: waiting helps nobody."""
        if self.taken >= self._places:
            raise Busy(f"{self.taken} answers are under way; try again in a moment")
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


class BodyLimit:
    """ASGI: refuses bodies that are too large, at their announced length or while they arrive.

    `most` tells how many bytes a path takes.
    """

    def __init__(self, app: ASGIApp, most: Callable[[str], int]) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._most(scope["path"])
        error = TooLarge(f"the body has more than {most} bytes")
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced) > most:
            await reply(error)(scope, receive, send)
            return
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            # The app sees a client that hung up, and lets go of what it has taken in.
            return {"type": "http.disconnect"} if taken > most else message

        async def guarded(message: Message) -> None:
            if taken <= most:
                await send(message)

        await self._app(scope, counted, guarded)
        if taken > most:
            await reply(error)(scope, receive, send)
