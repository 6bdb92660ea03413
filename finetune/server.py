"""The running server's /admin/releases, as any client with an admin key sees it."""

from typing import Any, Self

import httpx

from kb.errors import GateClosed, Permanent, Transient

URL = "http://127.0.0.1:8000"
PROMOTION_SECONDS = 2000
"""A promotion is answered when it is done: more than the server waits for an engine by default."""


class Refused(Permanent):
    """The server will not do it, and says why."""


class ServerDown(Transient):
    """No server answers."""


class Releases:
    """List, promote, roll back; close it, or use it in `with`.

    Raises Refused, GateClosed where a release did not pass, ServerDown.
    """

    def __init__(
        self, url: str = URL, key: str = "", transport: httpx.BaseTransport | None = None
    ) -> None:
        self._url = url.rstrip("/").removesuffix("/v1")
        self._client = httpx.Client(
            base_url=self._url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(PROMOTION_SECONDS, connect=5),
            trust_env=False,
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def list(self) -> dict[str, Any]:
        return self._ask("GET", "/admin/releases")

    def promote(self, release: str, *, force: bool = False) -> dict[str, Any]:
        return self._ask("POST", f"/admin/releases/{release}/promote", {"force": force})

    def rollback(self) -> dict[str, Any]:
        return self._ask("POST", "/admin/releases/rollback")

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            reply = self._client.request(method, path, json=body)
        except httpx.ConnectError as error:
            text = f"no server answers at {self._url}: start it with `vademecum up`"
            raise ServerDown(text) from error
        except httpx.HTTPError as error:
            raise ServerDown(f"the server at {self._url} broke off: {error}") from error
        try:
            said = reply.json()
            if reply.is_success and isinstance(said, dict):
                return said
            told = str(said["error"]["message"]) + _hint(reply.status_code)
            raise GateClosed(told) if said["error"].get("code") == "gate_closed" else Refused(told)
        except (ValueError, KeyError, TypeError) as error:
            text = f"the server at {self._url} answered {path} with status {reply.status_code}"
            raise Refused(text) from error


def _hint(status: int) -> str:
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return " (set VADEMECUM_KEY to a key of scope admin)"
    return ""
