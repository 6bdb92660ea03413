"""The retrieval measures, the collection's layout, and an evaluation from end to end."""

import json
import math
import random
from pathlib import Path

import pytest

from app.eval_retrieval import evaluate, table
from app.ranking import fold, ndcg, percentile, recall
from app.raw_speed import speeds
from kb.collection import read
from kb.collection_kb import build
from kb.embedding import FakeEmbedder
from kb.errors import BadData
from kb.layout import DATABASE
from kb.settings import KbSettings
from kb.store import Store

SETTINGS = KbSettings(embedder="fake:64", chunk_tokens=32)
PASSAGES = {
    "fever": ("Fever", "Give fluids against fever and measure the temperature twice a day."),
    "hands": ("", "Wash your hands before and after you see a patient."),
    "药房": ("药房", "药房每天早上八点半开门，周日休息。"),
    "long": ("Storage", "Records stay on the shelf. " * 40 + "Zelvorin is kept in the cellar."),
}
QUERIES = {"q1": "what helps against fever", "q2": "药房几点开门", "q3": "where is Zelvorin kept"}
QRELS = "query-id\tdoc-id\tscore\nq1\tfever\t2\nq1\thands\t1\nq2\t药房\t1\nq3\tlong\t1\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "collection"
    made.mkdir()
    passages = [{"id": i, "title": title, "text": text} for i, (title, text) in PASSAGES.items()]
    queries = [{"id": i, "text": text} for i, text in QUERIES.items()]
    queries.append({"id": "q4", "text": "nobody judged this"})
    for name, rows in {"corpus.jsonl": passages, "queries.jsonl": queries}.items():
        lines = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
        (made / name).write_text(lines, encoding="utf-8")
    (made / "qrels.tsv").write_text(QRELS, encoding="utf-8")
    return made


class CountingEmbedder(FakeEmbedder):
    """Remembers how many passages it was given, and breaks after some."""

    def __init__(self, breaks_after: int | None = None) -> None:
        super().__init__(64)
        self.seen = 0
        self._breaks_after = breaks_after

    def passages(self, texts):  # type: ignore[no-untyped-def]
        if self._breaks_after is not None and self.seen >= self._breaks_after:
            raise KeyboardInterrupt
        self.seen += len(texts)
        return super().passages(texts)


# -- measures ------------------------------------------------------------------------------------


def test_ndcg_of_a_worked_example() -> None:
    relevance = {"a": 3.0, "b": 2.0, "c": 1.0}
    ideal = 3 + 2 / math.log2(3) + 1 / math.log2(4)
    ranked = ["b", "x", "a"]
    assert ndcg(ranked, relevance) == pytest.approx((2 + 3 / math.log2(4)) / ideal)


def test_the_best_order_has_ndcg_1_and_no_other_has_more() -> None:
    rng = random.Random(0)
    for _ in range(200):
        relevance = {str(i): float(rng.randint(0, 3)) for i in range(rng.randint(1, 15))}
        names = list(relevance)
        best = sorted(names, key=lambda name: -relevance[name])
        rng.shuffle(names)
        assert 0 <= ndcg(names, relevance) <= 1 + 1e-9
        assert ndcg(best, relevance) == pytest.approx(1 if any(relevance.values()) else 0)


def test_only_the_first_k_count() -> None:
    ranked = [f"x{i}" for i in range(10)] + ["a"]
    assert ndcg(ranked, {"a": 1.0}) == recall(ranked, {"a": 1.0}) == 0
    assert recall(ranked, {"a": 1.0}, k=11) == 1


def test_recall_counts_what_is_relevant_only() -> None:
    assert recall(["a", "b", "c"], {"a": 1.0, "b": 0.0, "z": 1.0}) == 0.5


def test_a_document_stands_where_its_best_chunk_does() -> None:
    assert fold(["b", "a", "b", "c", "a"]) == ["b", "a", "c"]


def test_percentiles_are_values_that_occurred() -> None:
    values = [float(i) for i in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.95, 0.99)] == [50, 95, 99]
    assert percentile([7.0], 0.99) == 7


# -- the collection on disk ----------------------------------------------------------------------


def test_queries_that_nobody_judged_are_left_out(folder: Path) -> None:
    collection = read(folder)
    assert [q.id for q in collection.queries] == ["q1", "q2", "q3"]
    assert collection.queries[0].relevance == {"fever": 2.0, "hands": 1.0}
    assert len(collection.passages) == 4


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("corpus.jsonl", "{", "corpus.jsonl line 5 is not JSON"),
        ("corpus.jsonl", "[]", "corpus.jsonl line 5 is not an object"),
        ("corpus.jsonl", '{"text": "x"}', "corpus.jsonl line 5 has no id"),
        ("corpus.jsonl", '{"id": "x"}', "corpus.jsonl line 5 has no text"),
        ("corpus.jsonl", '{"id": "fever", "text": "x"}', "'fever' twice"),
        ("queries.jsonl", '{"id": "q9"}', "queries.jsonl line 5 has no text"),
        ("qrels.tsv", "q1\tfever", "qrels.tsv line 6 is not"),
        ("qrels.tsv", "q1\tfever\tmuch", "qrels.tsv line 6 is not"),
        ("qrels.tsv", "q1\tfeever\t1", "qrels.tsv line 6 names passage 'feever'"),
    ],
)
def test_a_wrong_row_is_named_by_file_and_line(
    folder: Path, name: str, line: str, message: str
) -> None:
    with (folder / name).open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    with pytest.raises(BadData, match=message):
        read(folder)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "qrels.tsv").unlink()
    with pytest.raises(BadData, match=r"holds no qrels\.tsv"):
        read(folder)


# -- from end to end -----------------------------------------------------------------------------


def test_all_modes_are_measured_side_by_side(folder: Path, tmp_path: Path) -> None:
    collection, embedder = read(folder), FakeEmbedder(64)
    made = build(collection, embedder, SETTINGS, tmp_path, lambda message: None)
    report = evaluate(collection, made, embedder, SETTINGS)
    assert set(report["modes"]) == {"hybrid", "dense", "lexical"}
    for mode in report["modes"].values():
        assert set(mode) == {"ndcg@10", "recall@10", "search_ms"}
        assert set(mode["search_ms"]) == {"p50", "p95", "p99"}
    # Four documents, ten places: dense lists them all; the long one counts by its best chunk.
    assert report["modes"]["dense"]["recall@10"] == 1
    assert report["modes"]["lexical"]["ndcg@10"] > 0.9
    assert (report["queries"], report["passages"]) == (3, 4)
    assert report["chunks"] > 4
    assert report["ingest_passages_per_s"] > 0
    assert report["raw_encode_passages_per_s"] is None  # a fake embedder has no bare model
    assert report["open_s"] >= 0 and report["rss_mb"] > 10
    assert "hybrid" in table(report)


def test_a_sample_of_the_queries_is_the_same_each_time(folder: Path, tmp_path: Path) -> None:
    collection, embedder = read(folder), FakeEmbedder(64)
    made = build(collection, embedder, SETTINGS, tmp_path, lambda message: None)
    one, two = (evaluate(collection, made, embedder, SETTINGS, limit=2) for _ in range(2))
    assert one["queries"] == 2
    assert all(one["modes"][m]["ndcg@10"] == two["modes"][m]["ndcg@10"] for m in one["modes"])


def test_a_second_run_embeds_nothing_and_tells_the_first_ones_speed(
    folder: Path, tmp_path: Path
) -> None:
    collection = read(folder)
    first, second = CountingEmbedder(), CountingEmbedder()
    made = build(collection, first, SETTINGS, tmp_path, lambda message: None)
    assert build(collection, second, SETTINGS, tmp_path, lambda message: None) == made
    assert first.seen > 0 and second.seen == 0
    store = Store(made / DATABASE, readonly=True)
    assert speeds(store)["ingest_passages_per_s"]
    store.close()


def test_other_words_make_the_lexical_index_anew_and_embed_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection, second = read(folder), CountingEmbedder()
    build(collection, FakeEmbedder(64), SETTINGS, tmp_path, lambda message: None)
    monkeypatch.setattr("kb.lexical._MARKER", "marker_of_tomorrow")
    made = build(collection, second, SETTINGS, tmp_path, lambda message: None)
    report = evaluate(collection, made, FakeEmbedder(64), SETTINGS)
    assert second.seen == 0
    assert report["modes"]["lexical"]["recall@10"] > 0.5


def test_an_interrupted_run_goes_on_where_it_stopped(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kb.collection_kb.GROUP", 1)
    collection = read(folder)
    whole = CountingEmbedder()
    build(collection, whole, SETTINGS, tmp_path / "whole", lambda message: None)
    broken, rest = CountingEmbedder(breaks_after=2), CountingEmbedder()
    with pytest.raises(KeyboardInterrupt):
        build(collection, broken, SETTINGS, tmp_path, lambda message: None)
    made = build(collection, rest, SETTINGS, tmp_path, lambda message: None)
    assert broken.seen + rest.seen == whole.seen
    report = evaluate(collection, made, FakeEmbedder(64), SETTINGS)
    assert report["modes"]["dense"]["recall@10"] == 1


def test_another_corpus_or_chunk_size_is_another_folder(folder: Path, tmp_path: Path) -> None:
    collection, embedder = read(folder), FakeEmbedder(64)
    made = {build(collection, embedder, SETTINGS, tmp_path, lambda message: None)}
    other = SETTINGS.model_copy(update={"chunk_tokens": 64})
    made.add(build(collection, embedder, other, tmp_path, lambda message: None))
    with (folder / "corpus.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"id": "new", "text": "One more."}\n')
    made.add(build(read(folder), embedder, SETTINGS, tmp_path, lambda message: None))
    assert len(made) == 3
