"""Compaction: the dead leave the disk, the living stay, and readers that are behind stay right."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from kb.catalog import Listed
from kb.compact import compaction, is_unfinished
from kb.feed import Feed
from kb.layout import DATABASE, LEXICAL
from kb.search import KnowledgeBase
from kb.store import Store
from kb.verify import verify
from tests.kb.bases import Base


def compact(base: Base, steps: int = 10_000) -> bool:
    """Run so many steps, publishing after each, as the writer does. Whether it came to its end."""
    for number, _ in enumerate(compaction(base.store, base.lexical, lambda: 5.0), start=1):
        base.publish()
        if number == steps:
            return False
    base.publish()
    return True


def listed(base: Base) -> Listed:
    return Listed("vs_test", "handbook", base.folder, (), 0)


def on_disk(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


def words_of_segments(base: Base) -> set[str]:
    """All words that segments hold, those of deleted passages included."""
    return {term for term, _ in base.lexical._searcher.terms_with_prefix("text", "")}


def segments_on_disk(base: Base) -> set[str]:
    files = (base.folder / LEXICAL).iterdir()
    return {f.name.split(".")[0] for f in files if not f.name.startswith(".")} - {"meta"}


def segments_in_use(base: Base) -> set[str]:
    meta = json.loads((base.folder / LEXICAL / "meta.json").read_text())
    return {segment["segment_id"].replace("-", "") for segment in meta["segments"]}


def sentence(word: str, n: int) -> str:
    return f"# Title {word}\n\n" + f"Here {word} says what it says. " * n


def held(kb: KnowledgeBase, word: str) -> list[str]:
    return sorted({h.filename for h in kb.search(word, 50, mode="lexical").hits})


@pytest.mark.parametrize("seed", range(5))
def test_after_compaction_no_byte_of_the_dead_is_in_any_file(base: Base, seed: int) -> None:
    """Text of all sizes, titles and vectors; deleted and replaced; in database, log and index."""
    rng = random.Random(seed)
    alive: dict[str, tuple[str, bytes]] = {}
    dead: list[tuple[str, bytes]] = []
    for step in range(60):
        path = f"{rng.randrange(12)}.md"
        if path in alive:
            dead.append(alive.pop(path))
        if base.ledger.find("/watched", path) and rng.random() < 0.4:
            base.remove(path)
            continue
        word = f"zq{seed}x{step}x{rng.getrandbits(32):08x}q"  # no ending to stem
        text = sentence(word, rng.choice([1, 3, 40, 400]))
        # Often several documents share a commit, and so a segment of the lexical index.
        base.put(path, text, title=f"About {word}", publish=rng.random() < 0.3)
        (chunk, *_) = Feed(base.store).changes(base.store.generation() - 1).added
        alive[path] = (word, chunk.vector)
    for path in ("kept.md", "gone.md"):  # in one segment, which therefore stays
        base.put(path, f"zq{seed}{path[:4]}q", publish=path == "gone.md")
    base.remove("gone.md")
    dead.append((f"zq{seed}goneq", b"none"))
    before = on_disk(base.folder)
    assert sum(word.encode() in before for word, _ in dead) > 10, "else this proves nothing"
    assert words_of_segments(base) & {word for word, _ in dead}, "nor would this"
    assert compact(base)
    after = on_disk(base.folder)
    unique = {vector for _, vector in dead} - {vector for _, vector in alive.values()}
    assert [word for word, _ in dead if word.encode() in after] == []
    # Tantivy keeps words as an automaton, in which bytes show little: so it is asked, and must have
    # left no segment behind that it does not answer from.
    assert words_of_segments(base) >= {word for word, _ in alive.values()}
    assert not words_of_segments(base) & {word for word, _ in dead}
    assert segments_on_disk(base) == segments_in_use(base)
    assert [vector for vector in unique if vector in after] == []
    assert all(word.encode() in after and vector in after for word, vector in alive.values())
    assert verify(listed(base)) == []
    assert {path: held(base.reader(), word) for path, (word, _) in alive.items()} == {
        path: [path] for path in alive
    }


def test_a_compaction_that_stops_anywhere_harms_nothing_and_is_known_to_be_unfinished(
    base: Base,
) -> None:
    for n in range(6):
        base.put(f"{n}.md", sentence(f"word{n}", 3))
    steps = 0
    done = False
    while not done:
        steps += 1
        base.put("0.md", sentence(f"again{steps}", 3))
        base.remove(f"{steps}.md") if steps < 4 else None
        done = compact(base, steps)
        assert is_unfinished(base.store) is not done
        assert verify(listed(base)) == []
        assert held(base.reader(), f"again{steps}") == ["0.md"]
        assert held(base.reader(), "word5") == ["5.md"]
        assert held(base.reader(), "word1") == []
    assert steps > 5 and not is_unfinished(base.store)
    assert b"again1 " not in on_disk(base.folder)


def test_a_reader_that_is_behind_one_compaction_goes_on_and_behind_two_starts_afresh(
    base: Base,
) -> None:
    base.put("a.md", sentence("okapi", 1))
    base.put("b.md", sentence("bongo", 1))
    readers = [base.reader() for _ in range(2)]
    for reader, fresh in zip(readers, (False, True), strict=True):
        base.put("a.md", sentence("okapi", 2))
        assert compact(base)
        changes = Feed(base.store).changes(reader.following.dense.generation)
        assert (changes.fresh, bool(changes.removed)) == (fresh, not fresh)
        assert held(reader, "okapi") == ["a.md"] and held(reader, "bongo") == ["b.md"]
        assert len(reader.following.dense) == base.store.counts()["chunks"]


def test_readers_follow_whatever_they_missed(base: Base) -> None:
    rng = random.Random(3)
    readers: list[KnowledgeBase] = []
    for step in range(60):
        match rng.randrange(6):
            case 0:
                compact(base, rng.choice([1, 2, 3, 5, 10_000]))
            case 1:
                readers.append(base.reader())
            case 2 if readers:
                rng.choice(readers).catch_up()
            case _:
                base.put(f"{rng.randrange(5)}.md", sentence(f"word{step}", rng.randrange(1, 4)))
    alive = {r["id"] for r in base.store.rows("SELECT id FROM chunks WHERE dead_seq IS NULL")}
    for reader in readers:
        reader.catch_up()
        zero = np.zeros(64, np.float32)
        assert reader.following.dense.cosines(zero, list(alive)).keys() == alive
        assert len(reader.following.dense) == len(alive) == len(reader.following.lexical.ids())


def test_rows_are_emptied_by_one_compaction_and_deleted_by_the_next(base: Base) -> None:
    base.put("a.md", "one passage")
    base.put("a.md", "another passage")
    assert base.store.counts()["dead_chunks"] == 1
    compact(base)
    assert base.store.counts()["dead_chunks"] == 0
    assert len(base.store.rows("SELECT * FROM chunks")) == 2
    compact(base)
    assert len(base.store.rows("SELECT * FROM chunks")) == 1
    assert len(base.store.rows("SELECT * FROM documents")) == 1


def test_an_id_of_a_purged_chunk_never_comes_back(base: Base) -> None:
    base.put("a.md", "one passage")
    (first,) = base.lexical.ids()
    base.remove("a.md")
    compact(base)
    compact(base)
    assert base.store.rows("SELECT * FROM chunks") == []
    base.put("a.md", "one passage")
    assert base.lexical.ids() != [first]


def test_vacuum_gives_way_to_other_work_and_is_tried_again(base: Base) -> None:
    base.put("a.md", sentence("okapi", 20_000))
    base.put("a.md", sentence("bongo", 20_000))
    asked = []

    def wanted() -> bool:
        asked.append(True)
        return len(asked) < 3

    list(compaction(base.store, base.lexical, lambda: 5.0, wanted))
    assert len(asked) > 2
    assert not is_unfinished(base.store) and b"okapi" not in on_disk(base.folder)


def test_a_reader_in_the_middle_of_a_question_delays_the_log_and_nothing_else(base: Base) -> None:
    base.put("a.md", sentence("okapi", 30))
    base.put("a.md", sentence("bongo", 30))
    reader = Store(base.folder / DATABASE, readonly=True)
    with reader.connection() as db:
        db.execute("BEGIN")
        db.execute("SELECT * FROM meta").fetchall()
        steps = compaction(base.store, base.lexical, lambda: 5.0)
        for _ in range(20):
            next(steps)
        assert is_unfinished(base.store) and base.store.counts()["dead_chunks"] == 0
        base.put("b.md", "Taken in all the same.")
        db.execute("COMMIT")
    reader.close()
    list(steps)
    base.publish()
    assert not is_unfinished(base.store)
    assert b"okapi" not in on_disk(base.folder)
