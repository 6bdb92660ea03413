"""A knowledge base for readers: what was written is found, and what is dead is never returned."""

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import count

import numpy as np
import pytest

from kb.dense import DenseIndex, Vector
from kb.embedding import FakeEmbedder, Vectors
from kb.errors import NotYet, StoreBroken
from kb.feed import Feed
from kb.layout import DATABASE
from kb.records import Changes, Found
from kb.search import KnowledgeBase, Mode, _background, merge
from kb.settings import KbSettings
from tests.kb.bases import FOLDER, Base, Clock, hit

MODES: tuple[Mode, ...] = ("hybrid", "dense", "lexical")


def texts(found: Found) -> list[str]:
    return [h.chunk.text for h in found.hits]


def names(found: Found) -> list[str]:
    return [h.filename for h in found.hits]


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> Mode:
    chosen: Mode = request.param
    return chosen


# -- what is written is found --------------------------------------------------------------------


def test_a_write_is_seen_by_the_next_search(base: Base, mode: Mode) -> None:
    reader = base.reader()
    assert reader.search("aspirin dose", mode=mode).hits == ()
    generation = base.put("a.md", "The dose of aspirin is one gram.")
    found = reader.search("aspirin dose", mode=mode)
    assert (names(found), found.generation) == (["a.md"], generation)


def test_a_write_is_seen_even_before_the_lexical_index_has_it(base: Base) -> None:
    reader = base.reader()
    base.put("a.md", "The dose of aspirin is one gram.", publish=False)
    assert names(reader.search("aspirin dose")) == ["a.md"]


def test_a_renamed_file_is_found_under_its_new_name(base: Base) -> None:
    base.put("a.md", "The dose of aspirin is one gram.")
    reader = base.reader()
    file = base.ledger.find(FOLDER, "a.md")
    assert file is not None
    base.ledger.renamed(file, FOLDER, "b.md")
    assert names(reader.search("aspirin")) == ["b.md"]


def test_a_passage_is_the_slice_of_its_document(base: Base) -> None:
    text = "# Drugs\n" + "Aspirin is taken with water. 阿司匹林随餐服用。\n\n" * 30
    base.put("a.md", text)
    hits = base.reader().search("aspirin 阿司匹林", 20).hits
    assert len(hits) > 3
    for h in hits:
        document = base.store.document(h.file_id)
        assert document is not None
        assert h.chunk.text == document.text[h.chunk.start : h.chunk.end]
        assert h.chunk.heading == "Drugs"
        assert h.document_sha256 == document.sha256


class Unlike(FakeEmbedder):
    """Its first vectors are a little off, as those of a text that was embedded beside longer ones;
    questions are texts as they are."""

    calls = 0

    def queries(self, texts: Sequence[str]) -> Vectors:
        return super().passages(texts)

    def passages(self, texts: Sequence[str]) -> Vectors:
        self.calls += 1
        out = super().passages(texts)
        if self.calls == 1:
            out = out + 1e-3 * np.random.default_rng(0).standard_normal(out.shape)
        return np.asarray(out / np.linalg.norm(out, axis=1, keepdims=True), np.float32)


def test_of_copies_the_one_that_was_taken_in_first_stands_first(base: Base, mode: Mode) -> None:
    base.embedder = Unlike()
    for name in ("first.md", "second.md", "third.md"):
        base.put(name, "The dose of aspirin is one gram.")
    cosines = [h.cosine for h in base.reader().search("dose of aspirin", mode=mode).hits]
    assert names(base.reader().search("dose of aspirin", mode=mode)) == [
        "first.md",
        "second.md",
        "third.md",
    ]
    assert mode == "lexical" or cosines[0] != cosines[1]


# -- what is dead is not returned ----------------------------------------------------------------


def test_a_deleted_document_is_never_returned(base: Base, mode: Mode) -> None:
    base.put("a.md", "The dose of aspirin is one gram.")
    reader = base.reader()
    base.remove("a.md", publish=False)  # the lexical index still holds it
    assert reader.search("aspirin dose", mode=mode).hits == ()


def test_a_replaced_document_is_never_returned(base: Base, mode: Mode) -> None:
    base.put("a.md", "The dose of aspirin is one gram.")
    reader = base.reader()
    base.put("a.md", "The dose of aspirin is two grams.", publish=False)
    assert set(texts(reader.search("aspirin dose", mode=mode))) <= {
        "The dose of aspirin is two grams."
    }


def test_the_dead_are_dropped_whatever_the_dense_index_holds(base: Base) -> None:
    base.put("a.md", "The dose of aspirin is one gram.")
    ghosts = Feed(base.store).changes(0).added
    base.remove("a.md")
    reader = base.reader()
    reader.following.dense.catch_up(Changes(base.store.generation(), ghosts))
    assert [i for i, _ in reader.following.dense.search(np.full(64, 0.125, np.float32), 5)] == [
        ghosts[0].id
    ]
    assert reader.search("aspirin dose").hits == ()


def test_dead_candidates_do_not_crowd_out_the_living(base: Base) -> None:
    for n in range(40):
        base.put(f"{n}.md", f"The dose of aspirin is {n} grams.", publish=False)
    base.publish()
    reader = base.reader()
    for n in range(39):
        base.remove(f"{n}.md", publish=False)
    assert names(reader.search("aspirin dose", 3, mode="lexical")) == ["39.md"]


def test_a_document_that_is_replaced_meanwhile_does_not_vanish(base: Base) -> None:
    """A commit between the look into the index and the look for the living."""
    base.put("a.md", "The dose of aspirin is one gram.")
    reader = base.reader()

    class Interrupted(DenseIndex):
        written = False

        def search(self, query: Vector, k: int) -> list[tuple[int, float]]:
            found = super().search(query, k)
            if not self.written:
                self.written = True
                base.put("a.md", "The dose of aspirin is two grams.")
            return found

    reader.following.dense = Interrupted(64)
    found = reader.search("aspirin dose")
    assert texts(found) == ["The dose of aspirin is two grams."]
    assert found.generation == base.store.generation()


# -- generations ---------------------------------------------------------------------------------


def test_a_search_waits_for_the_generation_it_was_asked_for(base: Base) -> None:
    reader = base.reader()

    def write_soon() -> None:
        time.sleep(0.2)
        base.put("a.md", "The dose of aspirin is one gram.")

    thread = threading.Thread(target=write_soon)
    thread.start()
    found = reader.search("aspirin", min_generation=1)
    thread.join()
    assert (found.generation, names(found)) == (1, ["a.md"])


def test_a_generation_that_does_not_come_is_not_yet(base: Base) -> None:
    base.put("a.md", "word")
    clock = Clock()

    def sleep(seconds: float) -> None:
        clock.now += seconds

    with pytest.raises(NotYet, match="handbook is at generation 1, not yet 3"):
        base.reader().following._wait_for(3, clock, sleep)
    assert 1002 <= clock.now < 1003


def test_a_generation_that_is_there_costs_no_wait(base: Base) -> None:
    base.put("a.md", "word")
    reader, slept = base.reader(), list[float]()
    reader.following._wait_for(1, sleep=slept.append)
    assert slept == []


# -- opening -------------------------------------------------------------------------------------


def test_another_embedder_is_refused_with_both_names(base: Base) -> None:
    with pytest.raises(StoreBroken, match=r"embedded with fake-64, not with fake-32"):
        KnowledgeBase(base.folder, FakeEmbedder(32), KbSettings())


def test_a_missing_database_is_refused(base: Base) -> None:
    with pytest.raises(StoreBroken, match=DATABASE):
        KnowledgeBase(base.folder.parent / "other", base.embedder, KbSettings())


def test_an_empty_knowledge_base_finds_nothing(base: Base, mode: Mode) -> None:
    found = base.reader().search("anything at all", mode=mode)
    assert (found.hits, found.generation) == ((), 0)
    assert set(found.keywords) <= {"anyth"}


# -- ranking -------------------------------------------------------------------------------------


def test_each_mode_ranks_the_answering_document_first(base: Base, mode: Mode) -> None:
    base.put("aspirin.md", "The dose of aspirin is one gram a day.")
    base.put("labour.md", "The trial period of a labour contract is six months.")
    base.put("zh.md", "劳动合同的试用期不得超过六个月。")
    reader = base.reader()
    assert names(reader.search("dose of aspirin", mode=mode))[0] == "aspirin.md"
    assert names(reader.search("trial period", mode=mode))[0] == "labour.md"
    assert names(reader.search("试用期多久", mode=mode))[0] == "zh.md"


def test_hits_are_best_first_and_at_most_k(base: Base, mode: Mode) -> None:
    for n in range(30):
        text = "aspirin " * (n % 5 + 1) + f"filler{n} and words " * (n % 7)
        base.put(f"{n}.md", text, publish=False)
    base.publish()
    reader = base.reader()
    for k in (1, 8, 30):
        scores = [h.score for h in reader.search("aspirin", k, mode=mode).hits]
        assert len(scores) == k
        assert scores == sorted(scores, reverse=True)
    assert reader.search("aspirin", 0, mode=mode).hits == ()


def test_coverage_is_a_share(base: Base, mode: Mode) -> None:
    base.put("a.md", "The dose of aspirin is one gram.", title="Pocket book")
    base.put("b.md", "劳动合同的试用期")
    reader = base.reader()
    for question in ("aspirin", "aspirin dose 试用期 nonsense", "the of", "", "pocket aspirin"):
        assert all(0 <= h.coverage <= 1 for h in reader.search(question, mode=mode).hits)
    best = reader.search("pocket book of aspirin", mode=mode).hits[0]
    assert best.coverage == 1.0, "a title counts as what the passage holds"


def test_keywords_are_the_content_words_rarest_first(base: Base) -> None:
    for n in range(5):
        base.put(f"{n}.md", f"aspirin text {'naproxen' * (n == 0)}")
    found = base.reader().search("What of aspirin or naproxen?")
    assert found.keywords == ("naproxen", "aspirin")


def test_a_question_of_any_shape_is_searched(base: Base, mode: Mode) -> None:
    base.put("a.md", "The dose of aspirin is one gram.")
    reader = base.reader()
    for question in ("", " ", "?!", "\x00", 'AND OR NOT "', "a" * 40_000, "+a:b^2~", "😀", "的"):
        reader.search(question, mode=mode)


# -- several, and the background -----------------------------------------------------------------


def test_merging_keeps_the_best_of_all() -> None:
    def of(cosines: Sequence[float], generation: int, keyword: str) -> Found:
        hits = (replace(hit(f"text {c}", int(100 * c)), cosine=c) for c in cosines)
        return Found(tuple(hits), generation, (keyword, "shared"))

    found = merge([of([0.9, 0.5], 3, "a"), of([0.8, 0.7], 7, "b")], 3)
    assert [h.cosine for h in found.hits] == [0.9, 0.8, 0.7]
    assert found.keywords == ("a", "shared", "b")
    assert merge([], 3) == Found((), 0)


def test_merging_one_leaves_it_as_it_is() -> None:
    alone = Found((replace(hit("a"), cosine=0.1), replace(hit("b"), cosine=0.9)), 3)
    assert merge([alone], 8) == alone


def test_the_background_is_the_mean_of_ranks_21_to_40_and_unknown_for_fewer() -> None:
    ranked = range(60)
    cosines = {i: float(i) for i in ranked}
    assert _background(ranked, cosines) == sum(range(20, 40)) / 20
    assert _background(ranked[:39], cosines) is None


# -- many threads --------------------------------------------------------------------------------


def test_threads_search_while_a_writer_writes_and_no_dead_text_comes_back(base: Base) -> None:
    """A search that starts after version n was committed returns version n or a newer one."""
    for n in range(4):
        base.put(f"{n}.md", f"subject{n} version 0 end")
    committed = dict.fromkeys(range(4), 0)
    reader, stop = base.reader(), threading.Event()
    failures: list[str] = []
    searches = count()

    def search(n: int) -> None:
        while not stop.is_set() and not failures:
            before = committed[n]
            try:
                found = reader.search(f"subject{n}", 8)
            except Exception as error:
                failures.append(repr(error))
                raise
            next(searches)
            for h in found.hits:
                if h.filename == f"{n}.md" and int(h.chunk.text.split()[2]) < before:
                    failures.append(f"{h.chunk.text} after version {before}")

    threads = [threading.Thread(target=search, args=(i % 4,)) for i in range(8)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 1.5
    for version in count(1):
        for n in range(4):
            base.put(f"{n}.md", f"subject{n} version {version} end")
            committed[n] = version
        if time.monotonic() > until:
            break
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert next(searches) > 20
    reader.catch_up()
    assert len(reader.following.dense) == base.store.counts()["chunks"], "two caught up at once"
