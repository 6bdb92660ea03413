"""`vademecum eval grounding`: right, cited and refused are counted as they are; nothing stays."""

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.engine import Delta, FakeEngine, Message
from app.eval_grounding import EvalFailed, ask_all, sample
from app.grounding import Item, Reply, read, report
from app.settings import AppSettings
from kb.errors import BadData, EngineDown, VademecumError
from kb.prompt import REFUSAL
from tests.app.commands import Vademecum
from tests.app.serving import Home, listening

GOLD = {"id": "g", "text": "The pharmacy opens at 8:15 on weekdays."}
OTHER = {"id": "o", "text": "Parcels for the ward arrive with the blue van."}
ASKED = "When does the pharmacy open on weekdays?"


def item(kind: str = "clean", **more: Any) -> Item:
    passages = {"clean": [GOLD], "noisy": [OTHER, GOLD], "unanswerable": [OTHER]}[kind]
    row = {
        "id": kind, "lang": "en", "kind": kind, "question": ASKED, "answers": ["8:15"],
        "passages": passages, "gold": [] if kind == "unanswerable" else ["g"],
    }  # fmt: skip
    return Item.model_validate(row | more)


CLEAN, NOISY, NONE = item(), item("noisy"), item("unanswerable")


def test_the_figures_of_an_answer_a_wrong_one_and_a_refusal() -> None:
    told = report(
        [CLEAN, CLEAN, NOISY, NONE, NONE],
        [
            Reply("At 8:15.", False, ("g",)),
            Reply("no", True, ()),
            Reply("Blue.", False, ("o", "g")),
            Reply("no", True, ()),
            Reply("8:15", False, ("o",)),
        ],
    )
    clean, noisy, none = (told[kind]["en"] for kind in ("clean", "noisy", "unanswerable"))
    assert (clean["n"], clean["answered"], clean["correct"], clean["refused"]) == (2, 0.5, 0.5, 0.5)
    assert (clean["cited"], clean["right_passage_cited"], clean["citation_precision"]) == (
        0.5,
        0.5,
        1.0,
    )
    assert (noisy["correct"], noisy["citation_precision"], noisy["right_passage_cited"]) == (
        0.0,
        0.5,
        1.0,
    )
    assert (none["refused"], none["citation_precision"], none["n"]) == (0.5, 0.0, 2)
    for cell in (clean, noisy, none):  # of the language, over all kinds
        assert (cell["refusal_precision"], cell["refusal_recall"]) == (0.5, 0.5)


def test_a_refusal_is_never_correct_and_a_share_of_nothing_is_null() -> None:
    (cell,) = report([CLEAN], [Reply("8:15", True, ())])["clean"].values()
    assert cell["correct"] == 0 and cell["citation_precision"] is None
    assert cell["refusal_recall"] is None


def test_a_limit_takes_as_many_of_every_kind_and_always_the_same() -> None:
    items = [item(kind, id=f"{kind}{n}") for kind in ("clean", "noisy") for n in range(9)]
    chosen = sample(items, 3)
    assert [one.kind for one in chosen] == ["clean"] * 3 + ["noisy"] * 3
    assert chosen == sample(items, 3) and sample(items, None) == items


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "items.jsonl:2 is not JSON"),
        ('{"id": "x"}', "items.jsonl:2: lang"),
        (json.dumps(CLEAN.model_dump() | {"kind": "odd"}), "items.jsonl:2: kind"),
    ],
)
def test_a_wrong_row_is_told_with_file_and_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text(f"{json.dumps(CLEAN.model_dump())}\n{text}\n")
    with pytest.raises(BadData, match=said):
        read(file)
    file.write_text("")
    with pytest.raises(BadData, match="holds no items"):
        read(file)


class Reader(FakeEngine):
    """Says the reference's first sentence, or refuses where no pharmacy is spoken of."""

    async def stream(self, messages: Sequence[Message], options: Mapping[str, Any]) -> Any:
        self.reply = GOLD["text"] if GOLD["text"] in messages[-1]["content"] else REFUSAL["en"]
        async for delta in super().stream(messages, options):
            yield delta


class Breaking(FakeEngine):
    """Breaks at its third question."""

    async def stream(self, messages: Sequence[Message], options: Mapping[str, Any]) -> Any:
        if len(self.asked) == 2:
            raise EngineDown("the language model broke off")
        async for delta in super().stream(messages, options):
            yield delta
        yield Delta()


@contextmanager
def served(path: Path, engine: FakeEngine) -> Iterator[tuple[str, Home]]:
    """A server whose stores are taken in, by a thread as by ingest."""
    home = Home(path, engine, AppSettings(evidence=0.0))
    stop = threading.Event()

    def take_in() -> None:
        done: set[Path] = set()
        while not stop.wait(0.02):
            # A store may be removed while it is looked at, or taken in.
            with contextlib.suppress(VademecumError, sqlite3.Error, OSError):
                for folder in (path / "uploads").glob("eval-grounding-*/file-*"):
                    if folder not in done and list(folder.glob("[!.]*")):
                        home.take_in(folder.parent.name)
                        done.add(folder)

    thread = threading.Thread(target=take_in)
    with listening(home.app()) as url:
        thread.start()
        try:
            yield url, home
        finally:
            stop.set()
            thread.join(10)
    home.close()


def left(home: Home) -> list[str]:
    return [one.name for one in home.catalog.all() if one.name != "handbook"]


def test_every_item_is_asked_over_its_own_passages_and_nothing_is_left(tmp_path: Path) -> None:
    items = [CLEAN, NOISY, NONE]
    with served(tmp_path, Reader()) as (url, home):
        replies = ask_all(url, items, model="vademecum", concurrency=2)
        assert [one.refused for one in replies] == [False, False, True]
        assert [one.cited for one in replies] == [("g",), ("g",), ()]
        assert left(home) == []
        assert not list((tmp_path / "uploads").glob("eval-*"))


def test_a_run_that_breaks_off_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    items = [item(id=f"i{n}") for n in range(5)]
    with served(tmp_path, Breaking()) as (url, home):
        with pytest.raises(EvalFailed, match="broke off"):
            ask_all(url, items, model="vademecum", concurrency=2)
        assert left(home) == []


def test_what_a_killed_run_left_is_removed_and_what_a_running_one_uses_is_not(
    tmp_path: Path,
) -> None:
    with served(tmp_path, Reader()) as (url, home):
        now = int(time.time())
        for name, age in (("eval-grounding-old-0", 7200), ("eval-grounding-new-0", 10)):
            home.catalog.add(name, home.embedder.name, now - age)
        ask_all(url, [CLEAN], model="vademecum")
        assert left(home) == ["eval-grounding-new-0"]


def test_the_command_prints_one_document(tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text("\n".join(json.dumps(one.model_dump()) for one in (CLEAN, NONE)))
    command = Vademecum(tmp_path / "home", tmp_path)
    with served(tmp_path, Reader()) as (url, _):
        told = command.json("eval", "grounding", str(file), "--url", url, "--language", "en")
        assert told["clean"]["en"]["correct"] == 1 and told["items"] == 2
        assert told["unanswerable"]["en"]["refusal_recall"] == 1
        plain = command("eval", "grounding", str(file), "--url", url, "--limit", "1")
        assert plain.returncode == 0 and "unanswerable  en" in plain.stdout
    assert command("eval", "grounding", str(file), "--language", "zh").returncode == 3
    assert command("eval", "grounding", str(file), "--url", "http://127.0.0.1:9").returncode == 1
