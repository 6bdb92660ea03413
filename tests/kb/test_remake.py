"""A knowledge base made anew beside itself: readers never miss a passage, a crash costs nothing."""

import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from kb.catalog import Listed
from kb.embedders import Embedders
from kb.embedding import FakeEmbedder, Vectors
from kb.errors import EmbedderDown, StoreBroken, StoreDown, UnknownKnowledgeBase
from kb.gathered import FILE, Gathered, Recipe
from kb.layout import LEXICAL, lexical_at, lexical_of
from kb.locks import WRITER, exclusive
from kb.rebuild import REQUEST, clear, renew
from kb.remake import Remake, made, progress, wanted
from kb.renewal import rebuild
from kb.search import KnowledgeBase
from kb.settings import KbSettings
from kb.verify import verify
from tests.kb.bases import FOLDER, Base

TEXTS = {f"{n}.md": f"# Animal {n}\n\nThe okapi number{n} sleeps. " * 3 for n in range(12)}


class Counting(FakeEmbedder):
    """Remembers how many passages it embedded, and may fail after so many."""

    def __init__(self, dimensions: int = 32, breaks_after: int = 10**9) -> None:
        super().__init__(dimensions)
        self.embedded = 0
        self._left = breaks_after

    def passages(self, texts: Sequence[str]) -> Vectors:
        if self.embedded + len(texts) > self._left:
            raise EmbedderDown("away")
        self.embedded += len(texts)
        return super().passages(texts)


@pytest.fixture
def others(tmp_path: Path) -> Embedders:
    return Embedders(KbSettings(embedder="fake:32"), tmp_path)


@pytest.fixture
def full(base: Base) -> Base:
    for name, text in TEXTS.items():
        base.put(name, text, title=name, publish=False)
    base.publish()
    return base


def recipe(embedder: str = "fake-32", **settings: int) -> Recipe:
    return wanted(embedder, KbSettings(**settings))  # type: ignore[arg-type]


def remake(base: Base, embedder: FakeEmbedder | None = None, to: Recipe | None = None) -> Remake:
    return Remake(base.store, to or recipe(), embedder or FakeEmbedder(32))


def listed(base: Base) -> Listed:
    return Listed("vs_test", "handbook", base.folder, (), 0)


def known(base: Base) -> dict[str, tuple[str, str, str]]:
    """Path -> file id, hash and text."""
    out = {}
    for file in base.ledger.all():
        document = base.store.document(file.id)
        assert document is not None
        out[file.path] = (file.id, document.sha256, document.text)
    return out


def all_found(kb: KnowledgeBase) -> set[str]:
    return {hit.filename for hit in kb.search("okapi", 100).hits}


def dimensions(base: Base) -> set[int]:
    rows = base.store.rows("SELECT length(vector) AS n FROM chunks WHERE dead_seq IS NULL")
    return {row["n"] // 2 for row in rows}


# -- another embedder ----------------------------------------------------------------------------


def test_files_documents_and_their_hashes_stay_and_the_generation_grows(full: Base) -> None:
    before, generation = known(full), full.store.generation()
    assert remake(full).finish() == full.store.generation() == generation + 1
    assert known(full) == before
    assert dimensions(full) == {32}
    assert made(full.store, recipe()) == recipe()
    assert verify(listed(full), 32) == []
    assert not (full.folder / FILE).exists()


def test_an_open_reader_goes_over_to_the_new_passages_at_its_next_search(
    full: Base, others: Embedders
) -> None:
    reader = KnowledgeBase(full.folder, full.embedder, KbSettings(), others)
    old = reader.search("number3", 1)
    work = remake(full)
    while work.step(2):
        assert reader.search("number3", 1) == old
    generation = work.finish()
    clear(full.store)
    new = reader.search("number3", 1)
    assert new.generation == generation
    assert [h.filename for h in new.hits] == [h.filename for h in old.hits] == ["3.md"]
    assert new.hits[0].chunk.id != old.hits[0].chunk.id
    assert all_found(reader) == set(TEXTS)
    reader.close()


def test_a_reader_opens_one_that_is_not_made_anew_yet_with_its_own_embedder(
    full: Base, others: Embedders
) -> None:
    reader = KnowledgeBase(full.folder, FakeEmbedder(32), KbSettings(), others)
    assert all_found(reader) == set(TEXTS)
    reader.close()


def test_a_reader_that_has_no_other_embedder_says_so_and_mixes_nothing(full: Base) -> None:
    reader = full.reader()
    remake(full).finish()
    with pytest.raises(StoreBroken, match="embedded with fake-32, not with fake-64"):
        reader.search("okapi")


def test_searches_go_on_all_the_time_without_an_error_or_an_empty_answer(
    full: Base, others: Embedders
) -> None:
    readers = [KnowledgeBase(full.folder, full.embedder, KbSettings(), others) for _ in range(3)]
    stop, wrong, searches = threading.Event(), list[str](), [0] * len(readers)

    def ask(number: int) -> None:
        modes = ("hybrid", "dense", "lexical")
        while not stop.is_set():
            mode = modes[searches[number] % 3]
            try:
                found = readers[number].search("the okapi sleeps", 100, mode=mode)  # type: ignore[arg-type]
            except Exception as error:  # noqa: BLE001
                wrong.append(repr(error))
                return
            if {h.filename for h in found.hits} != set(TEXTS):
                wrong.append(f"{mode}: {len(found.hits)} hits at {found.generation}")
            searches[number] += 1

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(len(readers))]
    for thread in threads:
        thread.start()
    try:
        for to in (32, 64, 32, 48, 48):
            work = remake(full, FakeEmbedder(to), recipe(f"fake-{to}"))
            while work.step(1):
                pass
            work.finish()
            clear(full.store)
            renew(full.store)
            clear(full.store)
            before = list(searches)
            while not wrong and any(n < m + 3 for n, m in zip(searches, before, strict=True)):
                stop.wait(0.01)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    for reader in readers:
        reader.close()
    assert wrong == []


# -- what happens meanwhile ----------------------------------------------------------------------


def test_what_is_written_replaced_and_deleted_meanwhile_is_as_it_is_at_the_end(
    full: Base, others: Embedders
) -> None:
    work = remake(full)
    work.step(7)
    full.put("new.md", "A brand new okapi.")
    full.put("0.md", "The okapi was replaced.")
    full.remove("1.md")
    work.step(7)
    full.put("2.md", "The okapi was replaced too.")
    full.remove("new.md")
    full.put("newer.md", "A newer okapi.")
    before = known(full)
    work.finish()
    reader = KnowledgeBase(full.folder, FakeEmbedder(32), KbSettings(), others)
    assert all_found(reader) == {*TEXTS, "newer.md"} - {"1.md"}
    texts = {h.chunk.text for h in reader.search("replaced", 100).hits if h.lexical}
    assert texts == {"The okapi was replaced.", "The okapi was replaced too."}
    assert known(full) == before
    assert verify(listed(full), 32) == []
    reader.close()


def test_one_large_document_is_made_in_slices(base: Base) -> None:
    base.put("a.md", "".join(f"# H{n}\n\nThe okapi {n}.\n\n" for n in range(50)))
    work, steps = remake(base), 1
    while work.step(8):
        steps += 1
    assert steps == 7
    work.finish()
    assert (base.store.counts()["chunks"], dimensions(base)) == (50, {32})
    assert verify(listed(base), 32) == []


def test_the_new_ids_were_never_given_before(full: Base) -> None:
    old = {row["id"] for row in full.store.rows("SELECT id FROM chunks")}
    work = remake(full)
    while work.step(3):
        pass
    full.put("late.md", "A late okapi.")
    late = {row["id"] for row in full.store.rows("SELECT id FROM chunks")} - old
    work.finish()
    new = {row["id"] for row in full.store.rows("SELECT id FROM chunks WHERE dead_seq IS NULL")}
    assert not new & (old | late)


def test_how_far_it_is_can_be_seen(full: Base) -> None:
    assert progress(full.store) is None
    work = remake(full)
    work.step(1)
    assert progress(full.store) == {"embedder": "fake-32", "documents_done": 1, "documents": 12}
    work.finish()
    assert progress(full.store) is None


# -- crashes and failures ------------------------------------------------------------------------


def test_after_a_crash_nothing_that_had_gathered_is_embedded_again(full: Base) -> None:
    first = Counting()
    dying = remake(full, first)
    dying.step(5)
    dying.close()
    second = Counting()
    remake(full, second).finish()
    assert first.embedded == 5
    assert first.embedded + second.embedded == full.store.counts()["chunks"]
    assert verify(listed(full), 32) == []


def test_one_that_was_begun_for_another_recipe_begins_anew(full: Base) -> None:
    dying = remake(full, FakeEmbedder(48), recipe("fake-48"))
    dying.step(5)
    dying.close()
    remake(full).finish()
    assert dimensions(full) == {32}


@pytest.mark.parametrize("whole", [0, 4096, 8192])
def test_a_damaged_gathering_begins_anew(full: Base, whole: int) -> None:
    work = remake(full)
    work.step(5)
    work.close()
    file = full.folder / FILE
    file.write_bytes(file.read_bytes()[:whole] + b"\xff" * (file.stat().st_size - whole))
    work = remake(full)
    if whole == 8192:  # what it was begun for can still be read
        with pytest.raises(StoreDown, match="begins again"):
            work.finish()
    work.close()
    remake(full).finish()
    assert verify(listed(full), 32) == []


@pytest.mark.parametrize("when", ["the index", "the commit"])
def test_a_failure_at_the_end_leaves_the_old_whole_and_can_be_tried_again(
    full: Base, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, reader = remake(full), full.reader()
    generation = full.store.generation()

    def fail(*_: object) -> None:
        raise StoreDown("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(
            *(("kb.rebuild._fill", fail) if when == "the index" else (work, "_replace", fail))
        )
        with pytest.raises(StoreDown):
            work.finish()
    assert (full.store.generation(), all_found(reader)) == (generation, set(TEXTS))
    assert verify(listed(full), 64) == []
    assert [p.name for p in full.folder.glob(f"{LEXICAL}*")] == [LEXICAL]
    assert work.finish() == generation + 1
    assert verify(listed(full), 32) == []


def test_an_index_that_a_crash_left_behind_is_cleared(full: Base) -> None:
    half = lexical_at(full.store, full.store.generation() + 1)
    shutil.copytree(full.folder / LEXICAL, half)
    clear(full.store)
    assert not half.exists() and (full.folder / LEXICAL).is_dir()
    shutil.copytree(full.folder / LEXICAL, half)
    remake(full).finish()  # wants that very name
    assert lexical_of(full.store) == half
    assert verify(listed(full), 32) == []


def test_an_embedder_that_fails_leaves_what_gathered(full: Base) -> None:
    work = remake(full, Counting(breaks_after=6))
    work.step(5)
    with pytest.raises(EmbedderDown):
        work.step(5)
    assert progress(full.store) == {"embedder": "fake-32", "documents_done": 5, "documents": 12}
    assert all_found(full.reader()) == set(TEXTS)


def test_what_died_leaves_the_gathering_too(full: Base) -> None:
    work = remake(full)
    while work.step(100):
        pass
    full.remove("3.md")
    work.step(1)
    gathered = Gathered(full.folder / FILE, recipe())
    documents = {row[1] for rows in gathered.rows(100) for row in rows}
    gathered.close()
    alive = full.store.rows("SELECT id FROM documents WHERE dead_seq IS NULL")
    assert documents == {row["id"] for row in alive}
    work.close()


# -- another chunker -----------------------------------------------------------------------------


def test_another_chunker_embeds_only_what_is_cut_differently(full: Base) -> None:
    full.put("long.md", "The okapi walks home today. " * 40)
    full.store.set_meta("chunker", "0")
    embedder = Counting(64)
    remake(full, embedder, recipe("fake-64", chunk_tokens=160)).finish()
    long = full.ledger.find(FOLDER, "long.md")
    assert long is not None
    (row,) = full.store.rows(
        "SELECT count(*) AS n FROM chunks c JOIN documents d ON d.id = c.document_id"
        " WHERE d.file_id = ? AND c.dead_seq IS NULL",
        (long.id,),
    )
    assert 0 < embedder.embedded == row["n"] < full.store.counts()["chunks"]
    assert full.store.meta("chunk_tokens") == "160"
    assert verify(listed(full), 64) == []


# -- only the indexes ----------------------------------------------------------------------------


def test_new_indexes_need_no_embedder_and_are_seen_by_the_next_search(full: Base) -> None:
    reader = full.reader()
    full.lexical.close()
    generation = full.store.generation()
    assert rebuild(listed(full), made(full.store, recipe()), None) == generation + 1  # type: ignore[arg-type]
    found = reader.search("okapi", 100, mode="lexical")
    assert {h.filename for h in found.hits} == set(TEXTS)
    assert found.generation == generation + 1
    assert verify(listed(full)) == []
    assert [p.name for p in full.folder.glob(f"{LEXICAL}*")] == [lexical_of(full.store).name]


def test_rebuild_makes_all_anew_when_the_embedder_is_another(full: Base, others: Embedders) -> None:
    rebuild(listed(full), recipe(), others)
    assert dimensions(full) == {32}
    assert verify(listed(full), 32) == []


def test_rebuild_asks_whoever_writes_and_waits(full: Base, others: Embedders) -> None:
    said: list[str] = []

    def obey(_: float) -> None:
        assert (full.folder / REQUEST).exists()
        renew(full.store)
        (full.folder / REQUEST).unlink()

    with exclusive(full.folder / WRITER, "it"):
        generation = rebuild(listed(full), recipe("fake-64"), others, said.append, obey)
    assert generation == full.store.generation()
    assert "which is asked to do it" in said[0]


def test_rebuild_does_it_itself_when_whoever_wrote_ends(full: Base, others: Embedders) -> None:
    full.lexical.close()
    held = exclusive(full.folder / WRITER, "it")
    held.__enter__()
    generation = full.store.generation()

    def end(_: float) -> None:
        held.__exit__(None, None, None)

    assert rebuild(listed(full), recipe("fake-64"), others, sleep=end) == generation + 1
    assert not (full.folder / REQUEST).exists()


def test_rebuild_of_one_that_is_removed_meanwhile_ends(full: Base, others: Embedders) -> None:
    def remove(_: float) -> None:
        full.folder.rename(full.folder.with_name(".removed"))

    with exclusive(full.folder / WRITER, "it"), pytest.raises(UnknownKnowledgeBase):
        rebuild(listed(full), recipe("fake-64"), others, sleep=remove)


# -- embedders by name ---------------------------------------------------------------------------


def test_an_embedder_is_opened_once_and_given_back_when_nobody_holds_it(tmp_path: Path) -> None:
    embedders = Embedders(KbSettings(embedder="fake:32"), tmp_path)
    today = embedders.today()
    assert embedders("fake-32") is today
    old = embedders("fake-64")
    assert embedders("fake-64") is old and old.dimensions == 64
    del old
    assert list(embedders._open) == ["fake-32"]


def test_weights_that_are_here_are_not_asked_of_a_service(tmp_path: Path) -> None:
    settings = KbSettings(embedder="theirs", embedder_url="http://peer")
    embedders = Embedders(settings, tmp_path)
    assert embedders._for("theirs") == settings
    assert embedders._for("elder").embedder_url == "http://peer"
    assert embedders._for("bundled:multilingual-e5-small").embedder_url == ""
    assert embedders._for(str(tmp_path)).embedder_url == ""
