"""POST /v1/feedback, and the file that it fills."""

import json
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from httpx import Response

from app.auth import OWNER, Caller
from app.errors import AlreadyRated, UnknownCompletion
from app.feedback import Answered, Feedback
from app.settings import AppSettings
from finetune.data_settings import Source
from finetune.formats import rows
from tests.app.serving import ANSWER, HOURS, QUESTION, Home, chunks

GIVEN = Answered([{"role": "user", "content": "When?"}], "At nine. [1]", {"release": "r1"})


def rate(home: Home, completion: str, **fields: Any) -> Response:
    return home.client.post("/v1/feedback", json={"completion_id": completion, **fields})


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "feedback.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("stream", [False, True])
def test_a_rated_answer_is_kept_with_what_the_model_was_asked(home: Home, stream: bool) -> None:
    reply = home.ask(stream=stream)
    completion = chunks(reply.text)[0]["id"] if stream else reply.json()["id"]
    assert not (home.path / "feedback").exists()
    assert rate(home, completion, rating="down", correction="At 8:15. [1]").json() == {
        "object": "feedback",
        "completion_id": completion,
        "rating": "down",
    }
    (line,) = lines(home.path / "feedback")
    assert line["completion_id"] == completion and line["correction"] == "At 8:15. [1]"
    assert line["messages"][0]["role"] == "system"
    assert QUESTION in line["messages"][-1]["content"] and "[1]" in line["messages"][-1]["content"]
    assert ANSWER.split(".")[0] in line["completion"]
    assert line["release"] and line["generation"]
    (row,) = rows(Source(path=home.path / "feedback" / "feedback.jsonl"))
    assert row.messages[-1].content == "At 8:15. [1]" and row.rejected == line["completion"]


def test_a_refusal_can_be_rated(tmp_path: Path) -> None:
    home = Home(tmp_path, settings=AppSettings(evidence=1.0))
    home.write("hours.md", HOURS)
    body = home.ask("Who painted the Sistine Chapel?").json()
    assert body["knowledge"]["refused"]
    assert rate(home, body["id"], rating="up").status_code == HTTPStatus.OK
    home.close()
    (line,) = lines(home.path / "feedback")
    assert "Sistine" in line["messages"][-1]["content"]


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"completion_id": "chatcmpl-0", "rating": "up"}, 404, "completion_not_found"),
        ({"completion_id": "chatcmpl-0", "rating": "good"}, 400, "invalid_value"),
        ({"completion_id": "chatcmpl-0", "rating": "up", "stars": 5}, 400, "invalid_value"),
        ({"rating": "up"}, 400, "invalid_value"),
    ],
)
def test_what_is_no_feedback_is_refused(
    home: Home, fields: dict[str, Any], status: int, code: str
) -> None:
    reply = home.client.post("/v1/feedback", json=fields)
    assert reply.status_code == status and reply.json()["error"]["code"] == code


def test_an_answer_is_rated_once_and_by_who_got_it(tmp_path: Path) -> None:
    told = Feedback(tmp_path)
    told.remember("a", OWNER, GIVEN)
    with pytest.raises(UnknownCompletion):
        told.rate("a", Caller("other", "chat"), "up", "", "")
    told.rate("a", OWNER, "up", "good", "")
    with pytest.raises(AlreadyRated):
        told.rate("a", OWNER, "down", "", "")
    assert [line["rating"] for line in lines(tmp_path)] == ["up"]


def test_only_the_newest_answers_are_remembered(tmp_path: Path) -> None:
    told = Feedback(tmp_path, most=2)
    for name in "abc":
        told.remember(name, OWNER, GIVEN)
    with pytest.raises(UnknownCompletion):
        told.rate("a", OWNER, "up", "", "")
    told.rate("c", OWNER, "up", "", "")


def test_a_line_that_a_crash_tore_does_not_spoil_the_next(tmp_path: Path) -> None:
    told = Feedback(tmp_path)
    for name in "ab":
        told.remember(name, OWNER, GIVEN)
    told.rate("a", OWNER, "up", "", "")
    with (tmp_path / "feedback.jsonl").open("a") as file:
        file.write('{"completion_id": "x", "mess')
    told.rate("b", OWNER, "up", "", "")
    assert [line["completion_id"] for line in lines(tmp_path)] == ["a", "b"]


def test_only_the_owner_of_the_home_can_read_it(tmp_path: Path) -> None:
    told = Feedback(tmp_path / "feedback")
    told.remember("a", OWNER, GIVEN)
    told.rate("a", OWNER, "up", "", "")
    assert (tmp_path / "feedback" / "feedback.jsonl").stat().st_mode & 0o77 == 0
