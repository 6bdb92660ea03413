"""OpenAI's lists: `limit`, `order`, `after`, `before`. Pure; knows nothing of what is listed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import Depends, Query

from app.errors import BadRequest


@dataclass(frozen=True, slots=True)
class Paging:
    """Which part of a list is wanted. `limit` None: the list's own."""

    limit: Annotated[int | None, Query(ge=1, le=10_000)] = None
    order: Annotated[Literal["asc", "desc"], Query()] = "desc"
    after: Annotated[str | None, Query()] = None
    before: Annotated[str | None, Query()] = None

    def page(self, items: Sequence[Mapping[str, Any]], limit: int = 20) -> dict[str, Any]:
        """`items` are objects with `id` and `created_at`. Raises BadRequest for an id that is not
        among them."""
        down = self.order == "desc"
        items = sorted(items, key=lambda item: (item["created_at"], item["id"]), reverse=down)
        if self.after is not None:
            items = items[_place(items, self.after, "after") + 1 :]
        if self.before is not None:
            items = items[: _place(items, self.before, "before")]
        shown = items[: self.limit or limit]
        return {
            "object": "list",
            "data": shown,
            "first_id": shown[0]["id"] if shown else None,
            "last_id": shown[-1]["id"] if shown else None,
            "has_more": len(items) > len(shown),
        }


Page = Annotated[Paging, Depends()]
"""The type of a route's parameter that holds the query's paging."""


def _place(items: Sequence[Mapping[str, Any]], item_id: str, param: str) -> int:
    for place, item in enumerate(items):
        if item["id"] == item_id:
            return place
    raise BadRequest(f"{param}: {item_id!r} is not in this list", param)
