"""Two lanes: what a person just changed overtakes a bulk load, however the load came about."""

import threading
from collections.abc import Sequence

import pytest

from ingest.ahead import Ahead
from ingest.bursts import MANY, Bursts
from ingest.events import FileEvent
from ingest.files import Stamp
from ingest.intake import Intake
from ingest.pipeline import Draft, Passage
from ingest.presence import Presence
from ingest.settings import IngestSettings
from ingest.slices import Slices
from kb.embedding import FakeEmbedder, Vectors
from kb.layout import DATABASE
from kb.ledger import File, Ledger
from kb.store import Store
from tests.ingest.homes import Home, eventually, states


def file(name: str, *, bulk: bool = False, changed_at: float = 1.0) -> File:
    done = (None, None, 0, 0, 0)
    return File(name, "/docs", name, "in_progress", *done, 0, 0, changed_at, bulk, True)


def draft(of: File, *costs: int) -> Draft:
    out = Draft(of, Stamp(1, 1), "")
    out.passages = tuple(Passage(out, i, f"{of.id}{i}", cost) for i, cost in enumerate(costs))
    out.vectors = [None] * len(costs)
    out.missing = len(costs)
    return out


def embed(passages: Sequence[Passage]) -> list[str]:
    for passage in passages:
        passage.draft.vectors[passage.index] = FakeEmbedder(4).passages([passage.text])[0]
    return [passage.text for passage in passages]


# -- which lane ------------------------------------------------------------------------------------


def test_many_changes_at_once_are_a_bulk_load_and_a_few_are_not() -> None:
    bursts = Bursts()
    assert not any(bursts.is_one_of_many("new", f"{n}", n / 100) for n in range(MANY))
    assert bursts.is_one_of_many("new", "another", 0.5)
    assert not bursts.is_one_of_many("edit", "of something else", 0.5)
    assert not bursts.is_one_of_many("new", "much later", 60.0)


def test_one_file_that_changes_often_is_not_many() -> None:
    bursts = Bursts()
    assert not any(bursts.is_one_of_many("edit", "a.md", n / 100) for n in range(5 * MANY))


def lanes(
    home: Home, batches: Sequence[list[FileEvent]], *, swept: bool = False
) -> dict[str, bool]:
    """Which paths the intake puts into the bulk lane, after a number of batches of events."""
    store = Store(home.catalog.get("handbook").folder / DATABASE)
    ledger = Ledger(store)
    uploads = home.catalog.uploads("handbook")
    intake = Intake(store, ledger, Presence(store), uploads)
    for events in batches:
        intake.apply(events, swept=swept)
    out = {known.path: known.bulk for known in ledger.all()}
    store.close()
    return out


def closed(home: Home, name: str, at: float) -> FileEvent:
    home.write(name, f"about {name}")
    return FileEvent("closed", str(home.docs), name, at=at)


def test_an_edit_and_a_file_elsewhere_overtake_files_that_are_being_copied(home: Home) -> None:
    home.write("known.md", "an okapi")
    home.sweep()
    home.write("known.md", "an okapi, edited")
    copied = [closed(home, f"copied/{n}.md", 1 + n / 100) for n in range(100)]
    edit = FileEvent("closed", str(home.docs), "known.md", at=1.5)
    found = lanes(home, [copied[:50], [edit], copied[50:], [closed(home, "alone.md", 1.9)]])
    assert sum(found.values()) == 100 - MANY
    assert not found["known.md"] and not found["alone.md"]


def test_what_a_sweep_finds_in_number_is_a_bulk_load(home: Home) -> None:
    events = [FileEvent("changed", str(home.docs), f"{n}.md") for n in range(MANY + 1)]
    for event in events:
        home.write(event.path, "an okapi")
    assert all(lanes(home, [events], swept=True).values())


def test_what_a_sweep_finds_alone_is_not(home: Home) -> None:
    home.write("a.md", "an okapi")
    assert lanes(home, [[FileEvent("changed", str(home.docs), "a.md")]], swept=True) == {
        "a.md": False
    }


def test_a_file_of_a_bulk_load_that_is_edited_later_is_no_longer_part_of_it(home: Home) -> None:
    load = [closed(home, f"{n}.md", 1.0) for n in range(50)]
    found = lanes(home, [load, [closed(home, "49.md", 30.0)]])
    assert found["48.md"] and not found["49.md"]


# -- what is embedded next -------------------------------------------------------------------------


def test_files_that_came_alone_are_embedded_first_and_the_newest_of_them_before_all() -> None:
    slices = Slices(1.0)
    drafts = [
        draft(file("bulk", bulk=True, changed_at=9.0), 5, 5, 5, 5, 5),
        draft(file("old", changed_at=1.0), 5, 5),
        draft(file("new", changed_at=2.0), 5, 5),
    ]
    assert embed(slices.next(drafts)) == ["new0", "new1", "old0", "old1"]
    assert embed(slices.next(drafts))[0].startswith("bulk")


def test_a_fresh_file_interrupts_a_pool_which_then_goes_on() -> None:
    slices = Slices(1.0)
    load = draft(file("bulk", bulk=True), 5, 5, 5, 5, 5, 5)
    assert len(embed(slices.next([load]))) == 4
    fresh = draft(file("fresh"), 5)
    assert embed(slices.next([load, fresh])) == ["fresh0"]
    assert len(embed(slices.next([load, fresh]))) == 2
    assert slices.next([load, fresh]) == []


def test_passages_of_a_load_are_sorted_by_length_across_its_files() -> None:
    slices = Slices(1.0)
    load = [draft(file(f"f{n}", bulk=True), *range(n, 100, 7)) for n in range(7)]
    costs = []
    while passages := slices.next(load):
        costs += [passage.cost for passage in passages]
        embed(passages)
    assert costs == sorted(range(100), reverse=True)


def test_a_pool_is_used_up_before_the_next_begins() -> None:
    slices = Slices(1.0)
    first = draft(file("first", bulk=True), 1, 1, 1, 1, 9, 9, 9, 9)
    embed(slices.next([first]))
    second = draft(file("second", bulk=True), 5, 5, 5, 5)
    assert slices.is_gathering(second) and not slices.is_gathering(first)
    assert all(text.startswith("first") for text in embed(slices.next([first, second])))
    assert all(text.startswith("second") for text in embed(slices.next([first, second])))


def test_a_call_takes_about_as_many_passages_as_fit_into_a_turn() -> None:
    slices = Slices(0.1)
    load = draft(file("bulk", bulk=True), *[92] * 2000)
    for _ in range(20):
        passages = slices.next([load])
        embed(passages)
        slices.took(passages, len(passages) / 500)  # 500 passages a second
    assert 40 <= len(slices.next([load])) <= 60


def test_calls_of_a_load_are_longer_while_it_is_calm_and_those_of_fresh_files_are_not() -> None:
    slices = Slices(0.1)
    load = draft(file("bulk", bulk=True), *[5] * 40)
    assert len(embed(slices.next([load], calm=True))) == 12
    assert len(embed(slices.next([load]))) == 4
    fresh = draft(file("fresh"), *[5] * 20)
    assert len(slices.next([load, fresh], calm=True)) == 4


def test_passages_of_files_that_are_no_longer_wanted_are_left_out() -> None:
    slices = Slices(1.0)
    load = [draft(file(f"f{n}", bulk=True), 5, 5, 5, 5) for n in range(3)]
    embed(slices.next(load))
    left = slices.next(load[:1])
    assert all(passage.draft is load[0] for passage in left)


# -- reading ahead ---------------------------------------------------------------------------------


class Reading:
    """Stands for the pipeline: files of a bulk load are read until `released`."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def begin(self, of: File, parser: object) -> Draft:
        if of.bulk:
            assert self.released.wait(10)
        return Draft(of, Stamp(1, 1), "")


def test_scans_in_a_bulk_load_keep_no_fresh_file_waiting() -> None:
    reading = Reading()
    woken = threading.Event()
    ahead = Ahead(reading, IngestSettings(parse_at_once=1), woken.set)  # type: ignore[arg-type]
    try:
        for n in range(5):
            ahead.begin(file(f"scan{n}", bulk=True))
        ahead.begin(file("note"))
        assert [of.id for of, _ in ahead.done(10)] == ["note"]
        assert woken.is_set()
        assert ahead.count(bulk=True) == 5 and ahead.count(bulk=False) == 0
    finally:
        reading.released.set()
        ahead.close()


def test_a_version_that_is_being_read_does_not_keep_the_next_one_waiting() -> None:
    reading = Reading()
    ahead = Ahead(reading, IngestSettings(), lambda: None)  # type: ignore[arg-type]
    try:
        old, new = file("a", bulk=True, changed_at=1.0), file("a", changed_at=2.0)
        ahead.begin(old)
        assert old in ahead and new not in ahead
        ahead.begin(new)
        assert [of.changed_at for of, _ in ahead.done(10)] == [2.0]
    finally:
        reading.released.set()
        ahead.close()


# -- all of it -------------------------------------------------------------------------------------


class Gated(FakeEmbedder):
    """Calls go through one by one as they are `let`, so that a test decides how far a load is."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[list[str]] = []
        self.allowed = 0.0

    def let(self) -> bool:
        """Let one call through, once those before it are made. False, for `eventually`."""
        if len(self.calls) >= self.allowed:
            self.allowed += 1
        return False

    def passages(self, texts: Sequence[str]) -> Vectors:
        eventually(lambda: len(self.calls) < self.allowed, 60)
        self.calls.append(list(texts))
        return super().passages(texts)


def test_a_fresh_file_is_in_the_next_call_but_one_and_found_while_the_load_goes_on(
    home: Home,
) -> None:
    embedder = Gated()
    home.embedder = embedder
    for n in range(200):
        home.write(f"load/{n}.md", f"number {n} " + "of many words " * 300)
    kb = home.kb()
    embed = FakeEmbedder().queries(["okapi"])[0]
    with home.following():
        try:
            home.write("first.md", "the reader of its lane has started")
            eventually(lambda: states(kb).get("first.md") == "completed" or embedder.let(), 30)
            home.write("note.md", "a short okapi note")
            eventually(lambda: "note.md" in states(kb) or embedder.let())
            before = len(embedder.calls)
            eventually(
                lambda: any("okapi" in text for text in embedder.calls[-1]) or embedder.let()
            )
            assert len(embedder.calls) <= before + 2
            eventually(
                lambda: any(
                    hit.filename == "note.md" for hit in kb.search_vector("okapi", embed, 5).hits
                )
            )
            assert kb.ledger.counts()["in_progress"] > 100
        finally:
            embedder.allowed = float("inf")


@pytest.mark.slow
def test_thousands_of_files_at_once_are_all_taken_in(home: Home) -> None:
    kb = home.kb()
    with home.following():
        for n in range(3000):
            home.write(f"d{n % 7}/{n}.md", f"# Rule {n}\n\nThe okapi word{n} is number {n}.")
        eventually(lambda: kb.ledger.counts() == {"completed": 3000}, 200)
        (hit,) = kb.search("word2999", 1, mode="lexical").hits
        assert hit.filename == f"d{2999 % 7}/2999.md"
