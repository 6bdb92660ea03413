"""What verify must notice: a whole knowledge base is clean, and each kind of damage is named."""

from pathlib import Path

import pytest

from kb.catalog import Catalog, Listed
from kb.layout import DATABASE, LEXICAL
from kb.rebuild import renew
from kb.verify import SHOWN, index_agrees, verify
from tests.kb.bases import FOLDER, Base


@pytest.fixture
def whole(base: Base, tmp_path: Path) -> Listed:
    """Documents that came, changed and went."""
    base.put("a.md", "# Fever\n\nGive fluids. Measure twice a day.")
    base.put("b.md", "Wash your hands. " * 40)
    completed(base, "b.md")
    base.put("a.md", "# Fever\n\nGive more fluids. Measure three times a day.")
    base.put("c.md", "To be removed.")
    base.remove("c.md")
    return Catalog(tmp_path).get("handbook")


def completed(base: Base, path: str) -> None:
    file = base.ledger.find(FOLDER, path)
    assert file is not None
    base.ledger.completed(file, size=1, mtime_ns=1)


def damage(base: Base, sql: str) -> None:
    """One statement behind the store's back."""
    with base.store.transaction() as db:
        assert db.execute(sql).rowcount > 0


def test_a_knowledge_base_with_a_past_is_clean(whole: Listed) -> None:
    assert verify(whole) == []
    assert verify(whole, dimensions=64) == []


def test_an_empty_knowledge_base_is_clean(tmp_path: Path) -> None:
    assert verify(Catalog(tmp_path).add("empty", "fake-64", 0)) == []


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        (
            "UPDATE chunks SET text = 'other' WHERE id = (SELECT max(id) FROM chunks c"
            " WHERE c.dead_seq IS NULL)",
            "is not what its document says",
        ),
        (
            "UPDATE chunks SET vector = x'00' WHERE id = (SELECT max(id) FROM chunks c"
            " WHERE c.dead_seq IS NULL)",
            "is not 128 bytes long",
        ),
        (
            "UPDATE documents SET dead_seq = 4 WHERE id = 2",
            "is alive although its document is dead",
        ),
        (
            "UPDATE chunks SET dead_seq = 4 WHERE document_id = 2",
            "is dead although its document is alive",
        ),
        ("DELETE FROM files WHERE path = 'b.md'", "belongs to no file"),
        (
            "UPDATE documents SET dead_seq = 4 WHERE id = 2",
            "file b.md is completed without a living document",
        ),
        (
            "UPDATE chunks SET dead_seq = 4 WHERE document_id = 2",
            "document 2 is alive without a passage",
        ),
        ("DELETE FROM chunks WHERE document_id = 2", "document 2 is alive without a passage"),
        ("UPDATE chunks SET seq = 99 WHERE document_id = 2", "is newer than"),
        ("UPDATE meta SET value = '6' WHERE key = 'generation'", "behind the database's 6"),
        ("UPDATE meta SET value = '1' WHERE key = 'generation'", "ahead of the database's 1"),
    ],
)
def test_damage_is_named(whole: Listed, base: Base, sql: str, problem: str) -> None:
    damage(base, sql)
    problems = verify(whole, sleep=lambda seconds: None)
    assert any(problem in line for line in problems), problems


def test_vectors_of_another_length_than_the_embedders_are_named(whole: Listed) -> None:
    assert "is not 64 bytes long" in verify(whole, dimensions=32)[0]


def test_many_problems_of_a_kind_are_counted_not_listed(whole: Listed, base: Base) -> None:
    for n in range(SHOWN + 2):
        base.put(f"more-{n}.md", "One passage.")
    damage(base, "UPDATE chunks SET text = 'x' WHERE text = 'One passage.'")
    problems = verify(whole)
    assert len(problems) == SHOWN + 1
    assert problems[-1].startswith("... and 2 more")


def test_an_index_that_lost_or_kept_too_much_is_noticed_and_rebuilt(
    whole: Listed, base: Base
) -> None:
    base.lexical.close()
    damage(
        base,
        "UPDATE chunks SET id = 1000 + id WHERE id = (SELECT max(id) FROM chunks c"
        " WHERE c.dead_seq IS NULL)",
    )
    problems = verify(whole)
    assert any("is missing from the lexical index" in line for line in problems)
    assert any("which is not alive" in line for line in problems)
    assert renew(base.store) == base.store.generation()
    assert verify(whole) == []


def test_a_missing_index_is_noticed_and_looking_does_not_make_one(
    whole: Listed, base: Base, tmp_path: Path
) -> None:
    assert index_agrees(base.store, tmp_path / "none") == ["the lexical index is missing"]
    assert not (tmp_path / "none").exists()


def test_a_torn_index_is_noticed(whole: Listed, base: Base) -> None:
    base.lexical.close()
    (whole.folder / LEXICAL / "meta.json").write_text("{")
    assert any("lexical index" in line for line in verify(whole))


def test_a_damaged_database_is_noticed(whole: Listed, base: Base) -> None:
    base.close()
    file = whole.folder / DATABASE
    content = bytearray(file.read_bytes())
    # All pages but the first two: the header and the table of tables stay readable.
    content[8192:] = b"\xff" * (len(content) - 8192)
    file.write_bytes(bytes(content))
    assert verify(whole)[0].startswith("the database")


def test_a_commit_that_reaches_the_index_late_is_waited_for(whole: Listed, base: Base) -> None:
    base.put("late.md", "Comes a moment later.", publish=False)
    assert index_agrees(base.store, whole.folder / LEXICAL, sleep=lambda _: base.publish()) == []
