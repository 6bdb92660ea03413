"""A real vLLM over the tiny model: it makes the same tokens, and takes adapters while it runs."""

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from app import children, probe
from app.engine import Delta, HttpEngine, Message
from app.engines import Wanted
from app.launch import Engines
from app.ports import free_port
from app.settings import EngineSettings
from finetune.inspection import HttpTokenize
from kb.manifest import BASE, Manifest
from kb.release import ADAPTER, write
from tests.finetune import tiny
from tests.finetune.small_runs import rows, run
from tests.finetune.test_doctor import look, said
from tests.finetune.test_engines import adapter
from tests.kb.releases import manifest

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

STARTING_SECONDS = 600


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With heads of 64: vLLM's attention for CPUs has no kernel for the tiny model's 8."""
    return tiny.save(tmp_path_factory.mktemp("model"), hidden=256)


@pytest.fixture(scope="module")
def engine_url(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One engine for all of this file, as `vademecum up` starts it where adapters are wanted."""
    home, port = tmp_path_factory.mktemp("engine"), free_port(children.LOOPBACK)
    settings = EngineSettings(
        port=port, runtime_adapters=True, max_model_len=1024, max_streams=2, kv_cache_gb=1
    )
    wanted = Wanted(release=BASE, port=port)
    spec = children.engine(settings, wanted, str(model), home, 2, cpu=children.is_cpu_build())
    with (home / "engine.log").open("wb") as log:
        # No compiler, and nothing that one left behind.
        bare = {"CXX": "/nowhere", "TORCHINDUCTOR_CACHE_DIR": str(home / "compiled")}
        engine = subprocess.Popen(
            spec.command, env=os.environ | dict(spec.environment) | bare, stdout=log, stderr=log
        )
        try:
            for _ in range(STARTING_SECONDS):
                assert engine.poll() is None, (home / "engine.log").read_text()[-2000:]
                if is_up(spec.health_url):
                    break
                time.sleep(1)
            yield f"http://{children.LOOPBACK}:{port}"
        finally:
            engine.terminate()
            engine.wait(60)


def is_up(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def test_the_real_engine_makes_the_same_tokens(
    model: Path, tmp_path: Path, engine_url: str
) -> None:
    settings = run(tmp_path / "run", model, [*rows(3), said("a?", "b", "ç?", "是的")])
    assert not look(settings, HttpTokenize(engine_url)).serious


def test_the_real_engine_says_how_likely_its_words_were(engine_url: str) -> None:
    asked = {"messages": [{"role": "user", "content": "a?"}]}
    options: dict[str, Any] = {"temperature": 0, "max_tokens": 8}
    deltas = asyncio.run(streamed(engine_url, asked["messages"], options | {"logprobs": True}))
    body = {"model": BASE, **asked, **options, "logprobs": True}
    reply = httpx.post(f"{engine_url}/v1/chat/completions", json=body, trust_env=False, timeout=60)
    (choice,) = reply.raise_for_status().json()["choices"]
    wanted = sum(token["logprob"] for token in choice["logprobs"]["content"])
    assert wanted < -1  # random weights are sure of nothing
    said = sum(d.logprob for d in deltas if d.logprob is not None)
    assert said == pytest.approx(wanted, abs=0.05)
    without = asyncio.run(streamed(engine_url, asked["messages"], options))
    assert all(delta.logprob is None for delta in without)


async def streamed(url: str, messages: Sequence[Message], options: dict[str, Any]) -> list[Delta]:
    engine = HttpEngine(url, BASE)
    try:
        return [delta async for delta in engine.stream(messages, options)]
    finally:
        await engine.close()


def test_a_release_answers_as_an_adapter_on_the_running_engine_and_leaves_it(
    model: Path, tmp_path: Path, engine_url: str
) -> None:
    made = adapter(model, tmp_path / "adapter", 1)
    release = write(tmp_path, manifest("r1"), {ADAPTER: made})
    asyncio.run(promoted_and_let_go(tmp_path, engine_url, release))


async def promoted_and_let_go(home: Path, url: str, release: Manifest) -> None:
    async def merge(_: Manifest) -> None:
        pytest.fail("an adapter is not merged")

    settings = EngineSettings(url=url, model=children.ENGINE_MODEL)
    launcher = Engines(home, settings, cpu=True, merge=merge)
    base = launcher.base()
    assert base is not None
    engine = await launcher.start(release)
    assert await engine.ready() and await probe.answers(engine)
    assert await probe.differ(engine, base)
    # The same name and path would be answered from the base's cached blocks, or an older load's.
    assert not await probe.differ(engine, engine) and not await probe.differ(base, base)
    loaded = await names(url)
    await launcher.stop(release.id, engine)
    assert await names(url) == ["base"] and len(loaded) == 2
    await base.close()


async def names(url: str) -> list[str]:
    async with httpx.AsyncClient(trust_env=False) as client:
        told = (await client.get(f"{url}/v1/models")).json()
    return [one["id"] for one in told["data"]]
