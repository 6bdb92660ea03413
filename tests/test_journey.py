"""The whole journey on real parts: rows from the live knowledge base to a release, and back."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from kb import release
from kb.manifest import BASE as BARE
from tests.house import ROOT, House, running, until
from tests.kb.releases import BASE

pytestmark = [pytest.mark.real, pytest.mark.timeout(3600)]

GATE_CLOSED = 2
QUESTION = "Until what time is the pharmacy open on Saturdays?"
SAMPLE = ROOT / "examples"
HANDBOOK = ("pharmacy-hours.md", "records-retention.md", "infection-control.md")
CONFIG: dict[str, Any] = {
    "model_name_or_path": BASE,
    "output_dir": "run",
    "max_steps": 6,
    "logging_steps": 1,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-3,
    "data": {
        "languages": ["en"],
        "sources": [{"path": "general.jsonl", "role": "general", "licence": "CC0"}],
        "knowledge": [
            {"kb": "handbook", "questions": "asked.jsonl", "licence": "ours"},
            {"kb": "handbook", "ask": "rules", "licence": "ours"},
        ],
    },
    "eval": {"grounding": ["items.jsonl"], "choice": ["choice.jsonl"], "most": 3},
    "release": {"name": "r1", "evidence": 0.0, "context_tokens": 300, "quotes": 0},
}


@pytest.fixture(scope="module")
def home(models_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a few documents, and beside them what a configuration names."""
    home = tmp_path_factory.mktemp("journey")
    (home / "models").mkdir()
    for model in (models_home / "models").iterdir():
        if not model.name.startswith("release-"):  # those go when they are no longer served
            (home / "models" / model.name).symlink_to(model)
    release.succeed(home, [BARE])  # not with the release that ships
    (home / "docs").mkdir()
    for name in HANDBOOK:
        shutil.copy(SAMPLE / "handbook" / name, home / "docs")
    (home / "field.yaml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
    lines(home / "asked.jsonl", asked())
    lines(home / "general.jsonl", [general(n) for n in range(40)])
    lines(home / "items.jsonl", [item(n) for n in range(4)])
    lines(home / "choice.jsonl", [{"question": "2 + 2?", "choices": ["3", "4"], "answer": "B"}])
    return home


def lines(file: Path, documents: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(one) + "\n" for one in documents), encoding="utf-8")


def asked() -> list[dict[str, Any]]:
    """The sample's questions to the documents that are there."""
    all_of_them = map(json.loads, (SAMPLE / "questions.jsonl").read_text("utf-8").splitlines())
    return [
        {"question": one["question"], "answers": one["answers"], "gold": [one["document"]]}
        for one in all_of_them
        if one.get("document") in HANDBOOK
    ]


def general(n: int) -> dict[str, Any]:
    return {"instruction": f"What is {n} plus {n + 1}?", "output": f"It is {2 * n + 1}."}


def item(n: int) -> dict[str, Any]:
    passages = [{"id": "p", "text": f"Room {n} of the museum holds {n + 7} paintings."}]
    question = {"question": f"How many paintings does room {n} hold?", "passages": passages}
    gold = {"answers": [str(n + 7)], "gold": ["p"], "kind": "clean"}
    return question | (gold if n % 2 else {"kind": "unanswerable"})


def finetune(home: Path, *arguments: str, codes: tuple[int, ...] = (0,)) -> Any:
    """What a command prints with --json; it must end with one of `codes`."""
    done = subprocess.run(
        [sys.executable, "-m", "finetune.cli", *arguments, "--json"],
        env=os.environ | {"VADEMECUM_HOME": str(home)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in codes, done.stderr[-3000:]
    return json.loads(done.stdout)


@dataclass
class Chats:
    """What a stream of chats saw: the releases in order, what went wrong, and unready moments."""

    releases: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unready: int = 0


def chat(url: str, seen: Chats, stream: bool) -> None:
    body = {
        "model": "vademecum",
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": 12,
        "stream": stream,
    }
    said = ""
    try:
        reply = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=120)
        said = f"{reply.status_code}: {reply.text}"
        text = reply.text
        if stream:
            *_, text = (
                line.removeprefix("data: ") for line in text.splitlines() if "knowledge" in line
            )
        seen.releases.append(json.loads(text)["knowledge"]["release"])
    except (httpx.HTTPError, KeyError, ValueError) as error:
        seen.problems.append(f"{error!r} of {said}")


@contextmanager
def chatting(house: House) -> Iterator[Chats]:
    """Two clients that ask and think three seconds in turn, and one that looks whether all is well.

    Without the pause the engine keeps both of two cores busy (its scheduler spins while anything
    is under way), and another takes ten minutes or more to start: docs/decisions/013-promotion.md.
    """
    seen, stop = Chats(), threading.Event()

    def ask(stream: bool) -> None:
        while not stop.wait(3):
            chat(house.url, seen, stream)

    def look() -> None:
        while not stop.wait(0.5):
            seen.unready += not house.is_ready()

    threads = [
        threading.Thread(target=ask, args=(True,)),
        threading.Thread(target=ask, args=(False,)),
        threading.Thread(target=look),
    ]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join(180)


def post(house: House, path: str) -> float:
    """Seconds that an admin's request took."""
    began = time.monotonic()
    reply = httpx.post(f"{house.url}/admin/releases/{path}", json={"force": True}, timeout=600)
    assert reply.status_code == 200, reply.text
    return time.monotonic() - began


def models(house: House) -> list[str]:
    return [one.id for one in house.client.models.list().data]


def current(house: House) -> str:
    return str(httpx.get(f"{house.url}/admin/releases", timeout=30).json()["current"])


def counts(house: House) -> int:
    """Documents that are searchable."""
    return house.client.vector_stores.list().data[0].file_counts.completed


def engines(house: House) -> int:
    """How many engines run."""
    return len(house.children("vllm.entrypoints.openai.api_server"))


def test_rows_of_the_live_knowledge_base_become_a_release_that_answers_and_goes_back(
    home: Path,
) -> None:
    config = str(home / "field.yaml")
    with running(home) as house:
        until(lambda: counts(house) == len(HANDBOOK), 120)
        assert models(house) == ["vademecum", BASE]

        account = finetune(home, "data", config)
        assert account["abilities"]["grounding"] > 4
        finetune(home, "doctor", config, "--engine", house.engine, "--engine-model", "base")
        planned = finetune(home, "plan", config)
        assert planned["fits"] and planned["measured"]["tokens_per_second"] > 0
        losses = finetune(home, "train", config)["losses"]["train"]
        assert losses["last"] < 0.9 * losses["first"]
        # Six steps prove nothing, so the gate may say no; that is what --force is for.
        finetune(home, "eval", config, codes=(0, GATE_CLOSED))
        assert finetune(home, "release", config, "--force")["id"] == "r1"

        with chatting(house) as seen:
            until(lambda: len(seen.releases) >= 4, 120)
            began = time.monotonic()
            finetune(home, "promote", config, "--url", house.url, "--force")
            took = time.monotonic() - began
            until(lambda: seen.releases[-3:] == ["r1"] * 3, 60)
        print(f"promoted in {took:.0f} s beside {len(seen.releases)} answers")  # noqa: T201
        assert not seen.problems and not seen.unready
        switched = seen.releases.index("r1")
        # Two clients: the other's answer may still be the base's, and end a moment later.
        assert set(seen.releases[:switched]) == {BASE}
        assert seen.releases[switched:].count(BASE) <= 1
        assert models(house) == ["vademecum", BASE, "r1"]
        text, _, _ = house.ask(QUESTION)
        bare = house.client.chat.completions.create(
            model=BASE, messages=[{"role": "user", "content": QUESTION}], max_tokens=40
        )
        assert text != bare.choices[0].message.content

        with chatting(house) as seen:
            until(lambda: len(seen.releases) >= 2, 60)
            back = post(house, "rollback")
            assert current(house) == BARE
            until(lambda: seen.releases[-2:] == [BASE] * 2, 120)
            forth = post(house, "r1/promote")
        print(f"rolled back in {back:.3f} s, promoted again in {forth:.3f} s")  # noqa: T201
        assert back < 1 and not seen.problems and not seen.unready

        house.child("app.serve").kill()
        house.child(str(home / "models" / "release-r1")).kill()  # its engine
        until(lambda: not house.is_ready(), 60)
        until(house.is_ready, 400)
        assert current(house) == "r1" and models(house) == ["vademecum", "r1", BASE]
        assert engines(house) == 2 and house.ask(QUESTION)[0] == text
    # What a home begins with that has a current release: tests/test_flows.py.
    assert release.succession(home) == ["r1", BARE]
