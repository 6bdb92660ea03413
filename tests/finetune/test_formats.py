"""Every format becomes rows; what is no row is refused with file and line."""

import json
from pathlib import Path
from typing import Any

import pytest

from finetune.data_settings import Source
from finetune.formats import BLOCK, blocks, rows
from finetune.rows import MOST_CHARACTERS, Row
from kb.errors import BadData

CHAT = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
SHARE = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]
ALPACA = {"instruction": "Why?", "input": "", "output": "Because."}


def lines(folder: Path, *values: Any) -> Path:
    file = folder / "data.jsonl"
    said = [v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in values]
    file.write_text("\n".join(said), encoding="utf-8")
    return file


def read(file: Path, **more: Any) -> list[Row]:
    return list(rows(Source(path=file, **more)))


@pytest.mark.parametrize(
    "value",
    [
        ALPACA,
        {"conversations": SHARE},
        {"messages": CHAT},
        {"messages": [CHAT[0], {"role": "assistant", "content": [{"text": "Because."}]}]},
        {"question": "Why?", "answers": ["Because."]},
        {"prompt": "Why?", "completion": "Because.", "rating": "up"},
        {"messages": CHAT, "label": True},
        {"messages": CHAT, "origin": {"source": "x"}},
    ],
)
def test_each_format_is_told_by_its_keys(tmp_path: Path, value: dict[str, Any]) -> None:
    (row,) = read(lines(tmp_path, value), role="general", ability="why", licence="MIT")
    assert [m.content for m in row.messages] == ["Why?", "Because."]
    if "origin" not in value:
        assert (row.role, row.ability, row.origin.licence) == ("general", "why", "MIT")
        assert row.origin.source == "data.jsonl:1"


def test_system_input_and_history_of_alpaca_stand_in_order(tmp_path: Path) -> None:
    value = ALPACA | {"system": "Be brief.", "input": "Say.", "history": [["a?", "b"]]}
    (row,) = read(lines(tmp_path, value))
    assert [m.role for m in row.messages] == ["system", "user", "assistant", "user", "assistant"]
    assert row.messages[3].content == "Why?\nSay."


@pytest.mark.parametrize(
    "value",
    [
        {
            "conversations": SHARE[:1],
            "chosen": SHARE[1],
            "rejected": {"from": "gpt", "value": "No."},
        },
        {"conversations": SHARE[:1], "chosen": "Because.", "rejected": "No."},
        {"instruction": "Why?", "chosen": "Because.", "rejected": "No."},
        {"messages": CHAT[:1], "chosen": CHAT[1], "rejected": "No."},
        {"prompt": "Why?", "completion": "No.", "rating": "down", "correction": "Because."},
    ],
)
def test_preferences_keep_the_worse_answer(tmp_path: Path, value: dict[str, Any]) -> None:
    (row,) = read(lines(tmp_path, value))
    assert (row.reply, row.rejected) == ("Because.", "No.")


def test_up_and_down_for_one_prompt_become_a_preference(tmp_path: Path) -> None:
    up = {"prompt": "Why?", "completion": "Because.", "rating": "up"}
    down = {"prompt": "Why?", "completion": "No.", "rating": "down"}
    other = {"prompt": "Who?", "completion": "Him.", "rating": "down"}
    made = read(lines(tmp_path, up, down, other))
    assert [(r.reply, r.rejected) for r in made] == [("Because.", None), ("Because.", "No.")]


def test_an_array_is_read_as_lines_are(tmp_path: Path) -> None:
    file = tmp_path / "data.json"
    file.write_text(json.dumps([ALPACA, ALPACA], indent=2), encoding="utf-8")
    assert [r.origin.source for r in read(file)] == ["data.json: row 1", "data.json: row 2"]


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16", "utf-8-sig"])
def test_legacy_encodings_are_read(tmp_path: Path, encoding: str) -> None:
    value = {
        "instruction": "试用期最长是多久？",
        "output": "试用期不得超过六个月，法律另有规定的除外。",
    }
    file = tmp_path / "data.json"
    file.write_bytes(json.dumps([value], ensure_ascii=False).encode(encoding))
    assert read(file)[0].reply == value["output"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        ({"instruction": "Why?"}, "output is missing"),
        (ALPACA | {"output": " "}, "output is empty"),
        (ALPACA | {"output": 3}, "output: must be text"),
        ({"conversations": SHARE[::-1]}, "role assistant, not user"),
        ({"conversations": SHARE[:1]}, "does not end with an answer"),
        ({"conversations": [{"from": "tool", "value": "x"}]}, "'tool' is none of"),
        ({"messages": CHAT[:1] * 2}, "role user, not assistant"),
        ({"messages": []}, "must be a list of turns"),
        (ALPACA | {"output": "x" * MOST_CHARACTERS}, "more than"),
        ({"prompt": "Why?", "completion": "x", "rating": 5}, "must be up or down"),
        ({"question": "Why?", "answers": []}, "one or more texts"),
        ({"question": "Why?", "answers": ["x"], "passages": []}, "under knowledge"),
        ({"colour": "red"}, "no known format has these keys: colour"),
        ({"messages": [{"role": "user", "content": [{"text": 5}]}]}, "user says must be text"),
        ('{"instruction": "a", "output": "b \\ud83d c"}', "half of a character"),
        ('{"instruction": "a", "output": "b", "system": "\\udc00"}', "half of a character"),
        (f'{{"instruction": "a", "output": {"1" * 5_000}}}', "too many digits"),
        ({"text": "x" * (MOST_CHARACTERS + 1)}, "more than"),
    ],
)
def test_a_bad_row_is_refused_with_file_and_line(tmp_path: Path, bad: Any, reason: str) -> None:
    file = lines(tmp_path, {"question": "Why?", "answers": ["x"]}, "", bad)
    with pytest.raises(BadData, match=rf"data\.jsonl:3: .*{reason}"):
        read(file)


def test_a_broken_array_is_refused_with_its_line_or_row(tmp_path: Path) -> None:
    file = tmp_path / "data.json"
    file.write_text('[\n{"instruction": "a"\n"output": "b"}]', encoding="utf-8")
    with pytest.raises(BadData, match=r"data\.json:3: not JSON"):
        read(file)
    file.write_text(json.dumps([ALPACA, {"instruction": "a"}]), encoding="utf-8")
    with pytest.raises(BadData, match=r"data\.json: row 2: output is missing"):
        read(file)
    file.write_text(f'[\n{{"a": "12"}},\n{{"b": {"1" * 5_000}}}]', encoding="utf-8")
    with pytest.raises(BadData, match=r"data\.json:3: .*too many digits"):
        read(file)
    file.write_text(json.dumps([ALPACA, ALPACA | {"output": "\udc00"}]), encoding="utf-8")
    with pytest.raises(BadData, match=r"data\.json: row 2: .*half of a character"):
        read(file)


def test_whole_characters_may_be_written_as_pairs(tmp_path: Path) -> None:
    (row,) = read(lines(tmp_path, json.dumps(ALPACA | {"output": "\N{GRINNING FACE}"})))
    assert row.reply == "\N{GRINNING FACE}"


@pytest.mark.parametrize(
    ("raw", "reason"), [(b"", "holds no rows"), (b"\x89PNG\r\n\x1a\n\x00\x00\x00\xff" * 40, "text")]
)
def test_a_file_without_rows_is_named(tmp_path: Path, raw: bytes, reason: str) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(raw)
    with pytest.raises(BadData, match=rf"data\.jsonl: .*{reason}"):
        read(file)
    with pytest.raises(BadData, match=r"none\.jsonl: No such file"):
        read(tmp_path / "none.jsonl")
    for text in ("", " \n\n"):
        (tmp_path / "plain.txt").write_text(text, encoding="utf-8")
        with pytest.raises(BadData, match=r"plain\.txt: holds no text"):
            read(tmp_path / "plain.txt")


def test_plain_text_becomes_blocks_of_bounded_size_and_loses_no_sentence(tmp_path: Path) -> None:
    sentences = [f"This is sentence number {n} of a long paragraph." for n in range(200)]
    text = f"{' '.join(sentences)}\n\nA short paragraph."
    file = tmp_path / "plain.txt"
    file.write_text(text, encoding="utf-8")
    made = read(file)
    assert len(made) > 1 and all(len(r.text) <= BLOCK for r in made)
    assert " ".join(" ".join(r.text for r in made).split()) == " ".join(text.split())


@pytest.mark.parametrize(
    "text",
    ["word " * 1000, "中" * 5000, "x" * (BLOCK + 1), f"Short. {'y' * 4000} {'word ' * 900}. End."],
)
def test_text_without_a_place_to_cut_is_cut_at_words_or_characters(text: str) -> None:
    made = list(blocks(text))
    assert all(len(block) <= BLOCK for block in made)
    assert "".join("".join(made).split()) == "".join(text.split())
    assert {word for block in made for word in block.split() if word[0] == "w"} <= {"word", "word."}


def test_a_calculators_notes_are_left_out_and_the_result_is_kept(tmp_path: Path) -> None:
    value = {"question": "48/2?", "answer": "It is 48/2 = <<48/2=24>>24.\n#### 24"}
    (row,) = read(lines(tmp_path, value))
    assert row.reply == "It is 48/2 = 24.\n#### 24" and row.answer == "24"
