"""Rows of several sources -> one set in the asked proportions, and a held-out part of it.

Seeded: the same rows and settings give the same set. Knows nothing of what a row says.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune.rows import Role, Row
from kb.errors import BadConfiguration

LARGEST = 0.2
"""Of the field's rows, that one document may cost for a loss to stop by."""


@dataclass(frozen=True, slots=True)
class Group:
    """The rows of one source. `weight` 2 counts each row twice beside others of the same role."""

    name: str
    role: Role
    rows: tuple[Row, ...]
    weight: float = 1.0

    @property
    def supply(self) -> float:
        return self.weight * len(self.rows)


@dataclass(frozen=True, slots=True)
class Mixed:
    rows: tuple[Row, ...]
    report: dict[str, Any]
    """What was asked and what came out, by role and source."""


def mix(groups: Sequence[Group], shares: Mapping[Role, float], seed: int) -> Mixed:
    """As many rows as the shares allow, shuffled. Without shares, every role gives all it has.

    A share is kept by leaving rows of the other roles out, never by repeating its own: what is
    scarce decides. Raises BadConfiguration for a share of a role that has no rows.
    """
    rng = random.Random(seed)
    supply: dict[Role, float] = {}
    for group in groups:
        supply[group.role] = supply.get(group.role, 0.0) + group.supply
    counts = _counts(supply, shares)
    rows: list[Row] = []
    sources = {}
    for role, count in counts.items():
        mine = [g for g in groups if g.role == role]
        for group, part in zip(mine, _split(count, [g.supply for g in mine]), strict=True):
            rows.extend(_draw(group.rows, part, rng))
            sources[group.name] = {"role": role, "had": len(group.rows), "taken": part}
    rng.shuffle(rows)
    roles = {
        role: {
            "asked": round(share, 4) if (share := _share(shares, role)) is not None else None,
            "had": sum(len(g.rows) for g in groups if g.role == role),
            "taken": counts.get(role, 0),
            "share": round(counts.get(role, 0) / len(rows), 4) if rows else 0.0,
        }
        for role in supply
    }
    return Mixed(tuple(rows), {"roles": roles, "sources": sources})


def hold_out(rows: Sequence[Row], share: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Train and held-out rows, the latter about `share` of all. Rows that show the same gold
    passage, or come from the same record, stay together: else the loss would tell what was learned
    by heart. A row that was repeated is held out once.

    Of few documents each is more than the share; then the smallest is held out if it is at most
    LARGEST of the field's rows: by their loss the run is stopped. Else none of them is."""
    families: dict[str, list[Row]] = {}
    for row in rows:
        families.setdefault(family(row), []).append(row)
    names = sorted(families)
    random.Random(seed).shuffle(names)
    out: set[str] = set()
    wanted, held = share * len(rows), 0
    for name in names:
        if held + len(families[name]) / 2 <= wanted:
            out.add(name)
            held += len(families[name])
    out |= _smallest(rows, families, out) if share else set()
    val = list(dict.fromkeys(row for row in rows if family(row) in out))
    return [row for row in rows if family(row) not in out], val


def _smallest(rows: Sequence[Row], families: Mapping[str, list[Row]], out: set[str]) -> set[str]:
    """The family of the field to hold out where none is."""
    field = [row for row in rows if row.role == "domain"]
    names = list(dict.fromkeys(map(family, field)))
    if not names or out & set(names):
        return set()
    smallest = min(names, key=lambda name: (len(families[name]), name))
    return {smallest} if len(families[smallest]) <= LARGEST * len(field) else set()


def family(row: Row) -> str:
    """What rows have in common that must not be on both sides."""
    return row.origin.gold or row.origin.source


def _counts(supply: Mapping[Role, float], shares: Mapping[Role, float]) -> dict[Role, int]:
    if not shares:
        return {role: round(have) for role, have in supply.items()}
    wanted = {role: share for role in shares if (share := _share(shares, role))}
    for role in wanted:
        if not supply.get(role):
            raise BadConfiguration(f"data.mix: {role} has a share, and no source gives such rows")
    total = min(supply[role] / share for role, share in wanted.items())
    parts = _split(int(total + 1e-9), list(wanted.values()))
    return dict(zip(wanted, parts, strict=True))


def _share(shares: Mapping[Role, float], role: Role) -> float | None:
    total = sum(shares.values())
    return shares.get(role, 0.0) / total if total else None


def _split(count: int, weights: Sequence[float]) -> list[int]:
    """`count` in parts as the weights say, by largest remainder: none is off by one or more."""
    total = sum(weights)
    if not total:
        return [0] * len(weights)
    exact = [count * weight / total for weight in weights]
    parts = [int(e) for e in exact]
    order = sorted(range(len(exact)), key=lambda n: parts[n] - exact[n])
    for n in order[: count - sum(parts)]:
        parts[n] += 1
    return parts


def _draw(rows: Sequence[Row], count: int, rng: random.Random) -> list[Row]:
    """Every row as often as `count` allows, and a random part once more."""
    if not rows:
        return []
    times, rest = divmod(count, len(rows))
    return [*list(rows) * times, *rng.sample(list(rows), rest)]
