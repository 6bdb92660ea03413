"""The lexical index on disk: one writer, readers that reload, and a marker that never lies."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kb.errors import StoreBroken
from kb.lexical import LexicalIndex
from kb.records import Changes
from kb.words import words
from tests.kb.bases import added, entry


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "lexical"


@pytest.fixture
def writer(folder: Path) -> Iterator[LexicalIndex]:
    opened = LexicalIndex(folder, readonly=False)
    yield opened
    opened.close()


def found(index: LexicalIndex, question: str, k: int = 10) -> list[int]:
    return [i for i, _ in index.search(words(question), k)]


def test_the_generation_survives_reopening(folder: Path, writer: LexicalIndex) -> None:
    for generation in (1, 5, 6):
        writer.catch_up(added(generation, entry(generation, "word")))
    writer.close()
    for readonly in (True, False):
        again = LexicalIndex(folder, readonly=readonly)
        assert (again.generation, sorted(again.ids())) == (6, [1, 5, 6])
        again.close()


def test_a_reader_sees_a_commit_only_after_reload(folder: Path, writer: LexicalIndex) -> None:
    writer.catch_up(added(1, entry(1, "word")))
    reader = LexicalIndex(folder)
    writer.catch_up(Changes(2, (entry(2, "word"),), (1,)))
    assert (reader.generation, found(reader, "word")) == (1, [1])
    reader.reload()
    assert (reader.generation, found(reader, "word")) == (2, [2])


def test_a_reader_refuses_to_write(folder: Path, writer: LexicalIndex) -> None:
    with pytest.raises(StoreBroken, match="opened for reading"):
        LexicalIndex(folder).catch_up(Changes(1))


def test_a_second_writer_is_refused(folder: Path, writer: LexicalIndex) -> None:
    with pytest.raises(StoreBroken, match="cannot be opened"):
        LexicalIndex(folder, readonly=False)
    writer.close()
    LexicalIndex(folder, readonly=False).close()


def test_a_replay_after_a_crash_adds_nothing_twice(folder: Path) -> None:
    """What a writer had not committed when it died is gone with it, marker and all."""
    history = [added(1, entry(1, "word")), Changes(2, (entry(2, "word"),), (1,))]
    first = LexicalIndex(folder, readonly=False)
    first.catch_up(history[0])
    assert first._writer is not None
    first._write(first._writer, history[1])  # and dies before the commit
    first.close()
    second = LexicalIndex(folder, readonly=False)
    assert second.generation == 1
    second.catch_up(history[1])
    assert (second.generation, second.ids()) == (2, [2])
    second.close()


def test_files_of_a_commit_that_never_was_are_removed_and_in_nobodys_way(folder: Path) -> None:
    first = LexicalIndex(folder, readonly=False)
    first.catch_up(added(1, entry(1, "word"), entry(2, "word")))
    committed = (folder / "meta.json").read_bytes()
    first.catch_up(Changes(2, removed=(1,)))
    first.close()
    # As if it had been killed when all was written but the file that says so.
    (folder / "meta.json").write_bytes(committed)
    stray = {file.name for file in folder.iterdir()}
    second = LexicalIndex(folder, readonly=False)
    assert second.generation == 1
    assert {file.name for file in folder.iterdir()} < stray
    second.catch_up(Changes(2, removed=(1,)))
    assert (second.generation, second.ids()) == (2, [2])
    second.close()


def test_a_failed_commit_leaves_nothing_for_the_next_one(writer: LexicalIndex) -> None:
    with pytest.raises(OverflowError):
        writer.catch_up(added(1, entry(1, "word"), entry(-1, "not an id")))
    writer.catch_up(added(1, entry(1, "word")))
    assert writer.ids() == [1]


def test_a_chinese_question_finds_chinese_text(writer: LexicalIndex) -> None:
    writer.catch_up(
        added(
            1,
            entry(1, "劳动合同期限三个月以上不满一年的，试用期不得超过一个月。"),
            entry(2, "阿司匹林用于解热镇痛。"),
            entry(3, "The trial period is one month."),
        )
    )
    assert found(writer, "试用期最长多久？")[0] == 1
    assert found(writer, "阿司匹林的作用")[0] == 2


def test_an_english_question_finds_other_forms_of_its_words(writer: LexicalIndex) -> None:
    writer.catch_up(added(1, entry(1, "Employers shall pay wages monthly.")))
    assert found(writer, "When does the EMPLOYER pay?") == [1]


def test_what_is_named_in_the_title_stands_above_what_only_mentions_it(
    writer: LexicalIndex,
) -> None:
    writer.catch_up(
        added(
            1,
            entry(1, "taken with aspirin, aspirin adds to its effect"),
            entry(2, "nothing of its name is said here", heading="Aspirin"),
        )
    )
    assert found(writer, "aspirin") == [2, 1]


@pytest.mark.parametrize("question", ["劳动法第三条", "劳动法第3条的内容"])
def test_the_article_that_a_question_names_is_found_first(
    writer: LexicalIndex, question: str
) -> None:
    laws = [(law, n) for law in ("劳动法", "刑法") for n in "一二三四五"]
    entries = (
        entry(i, f"本法依照劳动法第{n}条。", heading=f"{law} 第{n}条")
        for i, (law, n) in enumerate(laws)
    )
    writer.catch_up(added(1, *entries))
    assert laws[found(writer, question)[0]] == ("劳动法", "三")


def test_an_index_of_other_words_cannot_be_opened_and_so_is_built_again(
    folder: Path, writer: LexicalIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.close()
    monkeypatch.setattr("kb.lexical._MARKER", "marker_0")
    with pytest.raises(StoreBroken, match="cannot be opened"):
        LexicalIndex(folder)


def test_a_rare_word_counts_more_than_a_common_one(writer: LexicalIndex) -> None:
    texts = ["common", "common", "common rare", "common"]
    writer.catch_up(added(1, *(entry(i, text) for i, text in enumerate(texts, 1))))
    rarity = writer.rarity(["common", "rare", "absent"])
    assert 0 < rarity["common"] < rarity["rare"] < rarity["absent"]
    assert found(writer, "rare common")[0] == 3


def test_an_empty_index_has_a_rarity_and_no_ids(writer: LexicalIndex) -> None:
    assert writer.rarity(["word"])["word"] > 0
    assert writer.ids() == []


def test_the_marker_is_never_a_result(writer: LexicalIndex) -> None:
    writer.catch_up(added(1, entry(1, "generation marker")))
    assert found(writer, "generation marker") == [1]
    assert writer.ids() == [1]


def test_an_empty_question_finds_nothing(writer: LexicalIndex) -> None:
    writer.catch_up(added(1, entry(1, "word")))
    assert writer.search([], 5) == []


def test_a_torn_index_is_said_to_be_broken(folder: Path, writer: LexicalIndex) -> None:
    writer.catch_up(added(1, entry(1, "word")))
    reader = LexicalIndex(folder)
    writer.close()
    (folder / "meta.json").write_text("torn")
    with pytest.raises(StoreBroken, match="lexical"):
        LexicalIndex(folder)
    with pytest.raises(StoreBroken, match="lexical"):
        reader.reload()


def test_readers_reload_while_the_writer_commits(folder: Path, writer: LexicalIndex) -> None:
    """Every reload shows one whole commit: generation n holds exactly chunk n."""
    writer.catch_up(added(1, entry(1, "word")))
    stop, wrong = threading.Event(), []

    def follow() -> None:
        reader = LexicalIndex(folder)
        while not stop.is_set():
            reader.reload()
            if (got := reader.ids()) != [reader.generation]:
                wrong.append((reader.generation, got))

    threads = [threading.Thread(target=follow) for _ in range(3)]
    for thread in threads:
        thread.start()
    for n in range(2, 20):
        writer.catch_up(Changes(n, (entry(n, "word"),), (n - 1,)))
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
