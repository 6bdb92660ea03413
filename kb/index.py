"""The contract that every index fulfils. No implementation here, and no knowledge of any."""

from typing import Protocol, TypeVar

from kb.records import Changes

Query = TypeVar("Query", contravariant=True)


class Index(Protocol[Query]):
    """A derived, disposable view of the live chunks."""

    @property
    def generation(self) -> int:
        """The generation of the knowledge base that this index has caught up with."""
        ...

    def catch_up(self, changes: Changes) -> None:
        """Take over what happened after `generation`; afterwards `generation` is the changes'.
        Where they are `fresh`, forget everything first."""
        ...

    def search(self, query: Query, k: int) -> list[tuple[int, float]]:
        """Up to `k` (chunk id, score), best first."""
        ...
