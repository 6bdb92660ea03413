"""What comes out has the asked proportions, and what is held out was not trained on."""

from collections import Counter

import pytest

from finetune.mix import Group, family, hold_out, mix
from finetune.rows import Origin, Role, Row
from kb.errors import BadConfiguration


def group(name: str, role: Role, count: int, weight: float = 1.0) -> Group:
    made = (
        Row(text=f"{name} {n}", role=role, origin=Origin(source=f"{name}:{n}"))
        for n in range(count)
    )
    return Group(name, role, tuple(made), weight)


def roles(rows: tuple[Row, ...]) -> Counter[str]:
    return Counter(row.role for row in rows)


def test_without_shares_every_row_is_taken_once() -> None:
    mixed = mix([group("a", "domain", 7), group("b", "general", 3)], {}, 0)
    assert roles(mixed.rows) == {"domain": 7, "general": 3}
    assert len(set(mixed.rows)) == 10


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ({"domain": 0.8, "general": 0.2}, {"domain": 80, "general": 20}),
        ({"domain": 4, "general": 1}, {"domain": 80, "general": 20}),  # any scale
        ({"domain": 0.5, "general": 0.5}, {"domain": 20, "general": 20}),
        (
            {"domain": 0.6, "general": 0.2, "replay": 0.2},
            {"domain": 30, "general": 10, "replay": 10},
        ),
        ({"domain": 1}, {"domain": 100}),
    ],
)
def test_shares_are_kept_by_leaving_rows_out(
    shares: dict[Role, float], expected: dict[str, int]
) -> None:
    groups = [group("a", "domain", 100), group("b", "general", 20), group("c", "replay", 10)]
    mixed = mix(groups, shares, 0)
    assert roles(mixed.rows) == expected
    assert len(set(mixed.rows)) == len(mixed.rows)
    for role, told in mixed.report["roles"].items():
        assert told["taken"] == expected.get(role, 0)


def test_a_share_is_off_by_less_than_one_row() -> None:
    groups = [group("a", "domain", 97), group("b", "general", 31), group("c", "replay", 53)]
    shares: dict[Role, float] = {"domain": 0.47, "general": 0.22, "replay": 0.31}
    rows = mix(groups, shares, 3).rows
    for role, share in shares.items():
        assert abs(roles(rows)[role] - share * len(rows)) < 1


def test_a_weight_repeats_or_thins_a_source_beside_its_own_role() -> None:
    groups = [
        group("a", "domain", 10, 2.0),
        group("b", "domain", 10, 0.5),
        group("c", "general", 5),
    ]
    mixed = mix(groups, {}, 0)
    counts = Counter(row.text.split()[0] for row in mixed.rows)
    assert counts == {"a": 20, "b": 5, "c": 5}
    assert set(Counter(r.text for r in mixed.rows if r.text.startswith("a")).values()) == {2}


def test_a_share_without_rows_is_a_mistake_with_its_role() -> None:
    with pytest.raises(BadConfiguration, match="replay has a share"):
        mix([group("a", "domain", 3)], {"domain": 0.9, "replay": 0.1}, 0)


def test_the_same_seed_gives_the_same_set_and_another_seed_another() -> None:
    groups = [group("a", "domain", 50), group("b", "general", 20)]
    shares: dict[Role, float] = {"domain": 0.7, "general": 0.3}
    assert mix(groups, shares, 1).rows == mix(groups, shares, 1).rows
    assert mix(groups, shares, 1).rows != mix(groups, shares, 2).rows


def test_rows_of_one_gold_passage_are_never_on_both_sides() -> None:
    rows = [
        Row(text=f"{n}", origin=Origin(source=f"x:{n}", gold=f"sha{n % 20}" if n < 160 else ""))
        for n in range(200)
    ]
    train, val = hold_out(rows, 0.1, 0)
    assert len(train) + len(val) == 200 and abs(len(val) - 20) <= 8
    assert not {family(row) for row in train} & {family(row) for row in val}


def of_documents(*sizes: int) -> list[Row]:
    """Rows of the field that show these documents, and a fifth as many others."""
    shown = [
        Row(text=f"{d} {n}", origin=Origin(source=f"x:{d}:{n}", gold=f"sha{d}"))
        for d, size in enumerate(sizes)
        for n in range(size)
    ]
    return [*shown, *group("a", "general", sum(sizes) // 5).rows]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sizes", [(20,) * 5, (50,) * 8, (60, 60, 9), (30,) * 10])
def test_of_few_documents_the_smallest_is_held_out(sizes: tuple[int, ...], seed: int) -> None:
    """Each is more than the share that was asked."""
    train, val = hold_out(of_documents(*sizes), 0.05, seed)
    assert sum(row.role == "domain" for row in val) == min(sizes)
    assert not {family(row) for row in train} & {family(row) for row in val}


@pytest.mark.parametrize("sizes", [(20,), (20, 20), (40, 30, 30)])
def test_no_document_that_is_much_of_the_field_is_held_out(sizes: tuple[int, ...]) -> None:
    val = hold_out(of_documents(*sizes), 0.05, 0)[1]
    assert not any(row.role == "domain" for row in val)


def test_a_repeated_row_is_held_out_once_and_nothing_may_be_held_out() -> None:
    rows = list(group("a", "domain", 10).rows) * 3
    train, val = hold_out(rows, 0.2, 0)
    assert len(val) == len(set(val)) and len(train) == 3 * (10 - len(val))
    assert hold_out(rows, 0.0, 0) == (rows, [])
