"""A row that no stage could train on is refused with its file and line."""

from pathlib import Path

import pytest

from finetune.rows import MOST_CHARACTERS, Message, Origin, Row, read, write
from kb.errors import BadData

GOOD = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]'


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "Invalid JSON"),
        ('{"messages": [], "origin": {"source": "x"}}', "messages or text"),
        (GOOD + "}", "origin: Field required"),
        (GOOD + ', "orign": {}, "origin": {"source": "x"}}', "orign"),
        (GOOD.replace('"a"', '" "') + ', "origin": {"source": "x"}}', "is empty"),
        (GOOD.replace('"user"', '"assistant"') + ', "origin": {"source": "x"}}', "not user"),
        (GOOD + ', "rejected": " ", "origin": {"source": "x"}}', "rejected is empty"),
        ('{"text": "' + "x" * (MOST_CHARACTERS + 1) + '", "origin": {"source": "x"}}', "more than"),
        (
            GOOD + ', "origin": {"source": "x"}, "rejected": "' + "x" * MOST_CHARACTERS + '"}',
            "more than",
        ),
    ],
)
def test_a_bad_row_is_refused_with_file_and_line(tmp_path: Path, line: str, reason: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(f'{GOOD}, "origin": {{"source": "x"}}}}\n\n{line}\n', encoding="utf-8")
    with pytest.raises(BadData, match=rf"rows\.jsonl:3: .*{reason}"):
        list(read(file))


def test_a_question_without_an_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="does not end with an answer"):
        Row(messages=(Message(role="user", content="a"),), origin=Origin(source="x"))


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    rows = [
        Row(text="Ein Text. 文本", role="replay", origin=Origin(source="x:1", chunks=(3, 1))),
        Row.model_validate_json(GOOD + ', "origin": {"source": "y:2"}, "ability": "law"}'),
    ]
    assert write(rows, tmp_path / "rows.jsonl") == 2
    assert list(read(tmp_path / "rows.jsonl")) == rows


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"none\.jsonl: No such file"):
        list(read(tmp_path / "none.jsonl"))
    (tmp_path / "gb.jsonl").write_bytes("法".encode("gb18030"))
    with pytest.raises(BadData, match=r"gb\.jsonl: not UTF-8"):
        list(read(tmp_path / "gb.jsonl"))
