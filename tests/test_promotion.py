"""A release on real parts: promoted amid questions, rolled back, kept over restarts."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from kb import release
from kb.prompt import PROMPT_VERSION
from tests.house import House, running, until
from tests.kb.releases import BASE, manifest

pytestmark = [pytest.mark.real, pytest.mark.timeout(3600)]

EMBEDDER = "bundled:multilingual-e5-small"
QUESTION = "When does the pharmacy open on weekdays?"


@pytest.fixture(scope="module")
def home(models_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one document and release r1: an adapter that says something else."""
    home = tmp_path_factory.mktemp("promotion")
    (home / "models").mkdir()
    for model in (models_home / "models").iterdir():
        (home / "models" / model.name).symlink_to(model)
    (home / "docs").mkdir()
    (home / "docs" / "hours.md").write_text("The pharmacy opens at 8:15 on weekdays.\n")
    base = models_home / "models" / "smollm2-135m-instruct"
    tuned = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"]),
    )
    torch.manual_seed(0)
    for name, weights in tuned.named_parameters():
        if "lora_B" in name:
            weights.data = 0.02 * torch.randn_like(weights)
    tuned.save_pretrained(home / "runs" / "r1")
    release.write(
        home,
        manifest(
            "r1",
            created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            base={"name": BASE, "files": release.weights(base)},
            prompt_version=PROMPT_VERSION,
            embedder=EMBEDDER,
            serving={"evidence": 0.0, "context_tokens": 300, "quotes": 0},
        ),
        {"adapter": home / "runs" / "r1"},
    )
    return home


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
    try:
        reply = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=120)
        text = reply.text
        if stream:
            *_, text = (
                line.removeprefix("data: ") for line in text.splitlines() if "knowledge" in line
            )
        seen.releases.append(json.loads(text)["knowledge"]["release"])
    except (httpx.HTTPError, KeyError, ValueError) as error:
        seen.problems.append(repr(error))


@contextmanager
def chatting(house: House) -> Iterator[Chats]:
    """Two clients that ask and think a second in turn, and one that looks whether all is well.

    Without the second the engine keeps both of two cores busy (its scheduler spins while anything
    is under way), and another takes ten minutes or more to start: docs/decisions/013-promotion.md.
    """
    seen, stop = Chats(), threading.Event()

    def ask(stream: bool) -> None:
        while not stop.wait(1):
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
    reply = httpx.post(f"{house.url}/admin/releases/{path}", timeout=2000)
    assert reply.status_code == 200, reply.text
    return time.monotonic() - began


def models(house: House) -> list[str]:
    return [one.id for one in house.client.models.list().data]


def current(house: House) -> str:
    return str(httpx.get(f"{house.url}/admin/releases", timeout=30).json()["current"])


def engines(house: House) -> int:
    """How many engines run."""
    return len(house.children("vllm.entrypoints.openai.api_server"))


def test_a_release_is_promoted_without_a_pause_rolled_back_and_survives_restarts(
    home: Path,
) -> None:
    with running(home) as house:
        until(lambda: house.client.vector_stores.list().data[0].file_counts.completed == 1, 120)
        assert models(house) == ["vademecum", BASE]
        with chatting(house) as seen:
            until(lambda: len(seen.releases) >= 4, 120)
            took = post(house, "r1/promote")
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
            forth = post(house, "r1/promote")
        print(f"rolled back in {back:.3f} s, promoted again in {forth:.3f} s")  # noqa: T201
        assert back < 1 and not seen.problems and not seen.unready

        house.child("app.serve").kill()
        until(lambda: not house.is_ready(), 60)
        until(house.is_ready, 240)
        assert current(house) == "r1" and models(house) == ["vademecum", "r1", BASE]
        assert engines(house) == 2 and house.ask(QUESTION)[0] == text

    with running(home) as house:
        assert current(house) == "r1" and models(house) == ["vademecum", "r1"]
        assert engines(house) == 1 and house.ask(QUESTION)[0] == text
