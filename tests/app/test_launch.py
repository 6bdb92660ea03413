"""How a release comes to answer: an adapter on the running engine, or an engine of its own."""

import asyncio
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from app import engines, probe
from app.answer import Answerer
from app.engine import Engine, HttpEngine
from app.engines import Wanted
from app.errors import NotPromotable, PromotionFailed
from app.launch import Engines
from app.lineup import Serving
from app.ports import free_port
from app.profile import Profile
from app.releases import Releases
from app.settings import AppSettings, EngineSettings
from kb import release
from kb.errors import EngineDown
from kb.manifest import Manifest
from kb.settings import KbSettings
from tests.app.fake_vllm import FakeSupervisor, Vllm, vllm
from tests.kb.releases import store


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[FakeSupervisor]:
    """The base runs; who waits gives the supervisor its turn."""
    engines.write(tmp_path, [Wanted(release="base", port=0)])
    one = FakeSupervisor(tmp_path)
    one.running["base"] = Vllm()
    engines.write(tmp_path, [Wanted(release="base", port=one.running["base"].server_port)])
    yield one
    one.close()


def launcher(
    home: Path,
    settings: EngineSettings,
    *,
    cpu: bool = True,
    supervisor: FakeSupervisor | None = None,
    merged: list[str] | None = None,
) -> Engines:
    now = [0.0]

    async def sleep(seconds: float) -> None:
        now[0] += seconds
        if supervisor:
            await asyncio.to_thread(supervisor.look)

    async def merge(manifest: Manifest) -> None:
        if merged is not None:
            merged.append(manifest.id)

    return Engines(home, settings, cpu=cpu, merge=merge, sleep=sleep, clock=lambda: now[0])


async def says(engine: Engine) -> str:
    stream: AsyncGenerator[object, None] = engine.stream([], {})
    return "".join([delta.text async for delta in stream])  # type: ignore[attr-defined]


def serving(manifest: Manifest | None, engine: Engine) -> Serving:
    profile = Profile.of(EngineSettings(), AppSettings())
    return Serving(manifest, engine, Answerer(engine, profile))


def declared(home: Path) -> list[str]:
    return [one.release for one in engines.read(home)]


def run(story: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await story()

    asyncio.run(whole())


def test_without_a_gpu_a_second_engine_with_merged_weights_starts_beside_the_first(
    tmp_path: Path, supervisor: FakeSupervisor
) -> None:
    merged: list[str] = []
    manifest = store(tmp_path)
    one = launcher(tmp_path, EngineSettings(), supervisor=supervisor, merged=merged)

    async def story() -> None:
        engine = await one.start(manifest)
        assert (await says(engine), engine.model, merged) == ("r1", "r1", ["r1"])
        base, first = engines.read(tmp_path)
        assert base.release == "base" and first.model == str(tmp_path / "models" / "release-r1")
        assert base.port != first.port
        assert one.runs(manifest) and one.runs(None)
        bare = one.base()
        assert bare is not None and await says(bare) == "base"
        await bare.close()
        await one.stop("r1", engine)
        assert declared(tmp_path) == ["base"] and not one.runs(manifest)

    run(story)


def test_an_engine_that_does_not_come_is_not_declared_any_more(
    tmp_path: Path, supervisor: FakeSupervisor
) -> None:
    one = launcher(tmp_path, EngineSettings(start_seconds=5))

    async def story() -> None:
        with pytest.raises(PromotionFailed, match="r1 did not answer within 5 s"):
            await one.start(store(tmp_path))
        assert declared(tmp_path) == ["base"]

    run(story)


def test_an_engine_that_ends_again_and_again_is_not_waited_for(
    tmp_path: Path, supervisor: FakeSupervisor
) -> None:
    settings = EngineSettings(start_seconds=1e9)
    one = launcher(tmp_path, settings, supervisor=supervisor)
    supervisor.dying = {"r1"}

    async def story() -> None:
        for _ in range(2):  # ends of an earlier try do not count
            began = supervisor.ends
            with pytest.raises(PromotionFailed, match=r"ended 3 times .* logs/engine-r1\.log"):
                await one.start(store(tmp_path))
            assert supervisor.ends - began == 3
            assert declared(tmp_path) == ["base"]
            shutil.rmtree(tmp_path / "releases" / "r1")

    run(story)


def test_a_promotion_that_is_cut_off_leaves_no_engine_behind(
    tmp_path: Path, supervisor: FakeSupervisor
) -> None:
    one = launcher(tmp_path, EngineSettings())
    one._sleep = asyncio.sleep

    async def story() -> None:
        starting = asyncio.create_task(one.start(store(tmp_path)))
        while declared(tmp_path) != ["base", "r1"]:
            await asyncio.sleep(0.01)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert declared(tmp_path) == ["base"]

    run(story)


def test_after_a_restart_the_engines_are_found_again(
    tmp_path: Path, supervisor: FakeSupervisor
) -> None:
    manifest = store(tmp_path)

    async def story() -> None:
        engine = await launcher(tmp_path, EngineSettings(), supervisor=supervisor).start(manifest)
        await engine.close()
        again = launcher(tmp_path, EngineSettings()).attach(manifest)
        assert await says(again) == "r1"
        await again.close()

    run(story)


def test_a_base_that_does_not_run_any_more_is_started_for_who_attaches_to_it(
    tmp_path: Path, supervisor: FakeSupervisor
) -> None:
    alone = engines.own(tmp_path, store(tmp_path), free_port("127.0.0.1"))
    engines.write(tmp_path, [alone])
    supervisor.look()
    for cpu, manifest in ((True, None), (False, store(tmp_path, "r2"))):
        engines.write(tmp_path, [alone])
        attached = launcher(tmp_path, EngineSettings(), cpu=cpu).attach(manifest)
        asyncio.run(attached.close())
        assert declared(tmp_path) == ["r1", "base"]
        assert len({one.port for one in engines.read(tmp_path)}) == 2


def test_the_engine_of_another_release_of_that_id_is_not_taken_for_its_own(
    tmp_path: Path, supervisor: FakeSupervisor
) -> None:
    first = store(tmp_path)
    engines.write(tmp_path, [engines.own(tmp_path, first, 9001)])
    one = launcher(tmp_path, EngineSettings(runtime_adapters=False))
    shutil.rmtree(tmp_path / "releases" / "r1")
    second = store(tmp_path, revision="another")
    assert one.runs(first) and not one.runs(second)
    release.succeed(tmp_path, ["r1", "base"])
    kb = KbSettings(embedder="fake:64")
    assert engines.going_on(tmp_path, EngineSettings(), kb, cpu=True, report=print) is None


def test_whole_weights_are_served_from_the_release_and_never_by_an_adapter(
    tmp_path: Path, supervisor: FakeSupervisor
) -> None:
    manifest = store(tmp_path, "full", kind="merged", adapter=None)
    merged: list[str] = []
    one = launcher(tmp_path, EngineSettings(), cpu=False, supervisor=supervisor, merged=merged)

    async def story() -> None:
        engine = await one.start(manifest)
        assert engines.read(tmp_path)[1].model == str(tmp_path / "releases" / "full" / "model")
        assert merged == []
        await engine.close()

    run(story)


def test_on_a_gpu_an_adapter_is_loaded_under_a_new_name_and_path_each_time(
    tmp_path: Path, supervisor: FakeSupervisor
) -> None:
    manifest = store(tmp_path)
    one = launcher(tmp_path, EngineSettings(), cpu=False)
    host = supervisor.running["base"]

    async def story() -> None:
        for _ in range(2):
            engine = await one.start(manifest)
            assert (await says(engine), engine.model) == ("r1", "r1")
            await one.stop("r1", engine)
        assert list(host.words) == ["base"]
        (name, path), (other, place) = host.loaded
        assert name != other and path != place
        assert not Path(path).exists() and not Path(place).exists()
        assert declared(tmp_path) == ["base"]

    run(story)


def test_the_base_is_not_stopped_while_an_adapter_needs_it(
    tmp_path: Path, supervisor: FakeSupervisor
) -> None:
    one = launcher(tmp_path, EngineSettings(), cpu=False)

    async def story() -> None:
        engine = await one.start(store(tmp_path))
        await one.stop("base", one.attach(None))
        assert declared(tmp_path) == ["base"]
        await engine.close()

    run(story)


def test_an_engine_that_was_started_anew_gets_its_adapter_again(
    tmp_path: Path, supervisor: FakeSupervisor
) -> None:
    one = launcher(tmp_path, EngineSettings(), cpu=False)
    host = supervisor.running["base"]

    async def story() -> None:
        engine = await one.start(store(tmp_path))
        host.restart()
        answers = await asyncio.gather(*(says(engine) for _ in range(5)))
        assert set(answers) == {"r1"} and len(host.loaded) == 2
        host.restart()
        assert await engine.ready() and await says(engine) == "r1"
        await engine.close()

    run(story)


def test_after_a_restart_of_the_server_the_adapter_is_loaded_when_it_is_asked_for(
    tmp_path: Path, supervisor: FakeSupervisor
) -> None:
    manifest = store(tmp_path)

    async def story() -> None:
        engine = launcher(tmp_path, EngineSettings(), cpu=False).attach(manifest)
        answers = await asyncio.gather(*(says(engine) for _ in range(5)))
        assert set(answers) == {"r1"} and len(supervisor.running["base"].loaded) == 1
        await engine.close()
        engine = launcher(tmp_path, EngineSettings(), cpu=False).attach(manifest)
        assert await engine.ready() and await says(engine) == "r1"
        await engine.close()

    run(story)


def test_only_engines_that_somebody_stands_on_are_kept(
    tmp_path: Path, supervisor: FakeSupervisor
) -> None:
    settings = EngineSettings(max_adapter_rank=8)
    one = launcher(tmp_path, settings, cpu=False, supervisor=supervisor)

    async def story() -> None:
        full = await one.start(store(tmp_path, "full", kind="merged", adapter=None))
        one.keep({"full", "base"})
        assert declared(tmp_path) == ["base", "full"]
        adapter = await one.start(store(tmp_path))
        one.keep({"r1"})
        assert declared(tmp_path) == ["base"]
        await one.stop("r1", adapter)
        one.keep({"full"})
        assert declared(tmp_path) == []
        await full.close()

    run(story)


@pytest.mark.parametrize("takes_adapters", [True, False])
def test_a_base_that_was_started_for_an_adapter_goes_with_it(
    tmp_path: Path, supervisor: FakeSupervisor, takes_adapters: bool
) -> None:
    full = store(tmp_path, "full", kind="merged", adapter=None)
    store(tmp_path)
    release.succeed(tmp_path, ["full"])
    engines.write(tmp_path, [engines.own(tmp_path, full, free_port("127.0.0.1"))])
    supervisor.look()
    supervisor.take_adapters = takes_adapters
    one = launcher(tmp_path, EngineSettings(), cpu=False, supervisor=supervisor)

    async def story() -> None:
        hour = asyncio.Event()

        async def sleep(seconds: float) -> None:
            await hour.wait()

        releases = Releases(
            tmp_path,
            one,
            serving,
            lambda _: [],
            current=full,
            keep_seconds=3600,
            stall_seconds=300,
            sleep=sleep,
        )
        await releases.open()
        if takes_adapters:
            await releases.promote("r1")
            assert "base" in declared(tmp_path)
            await releases.rollback()
            hour.set()
            while releases.lineup.others():
                await asyncio.sleep(0.01)
        else:
            with pytest.raises(PromotionFailed):
                await releases.promote("r1")
        await releases.close()
        assert declared(tmp_path) == ["full"]
        await releases.lineup.close()

    run(story)


def test_a_rank_above_the_engines_gets_an_engine_of_its_own(
    tmp_path: Path, supervisor: FakeSupervisor
) -> None:
    settings = EngineSettings(max_adapter_rank=8)
    adapter = {"rank": 16, "alpha": 32, "targets": ["q_proj"]}
    one = launcher(tmp_path, settings, cpu=False, supervisor=supervisor)

    async def story() -> None:
        engine = await one.start(store(tmp_path, adapter=adapter))
        assert declared(tmp_path) == ["base", "r1"]
        await engine.close()

    run(story)


def test_an_engine_elsewhere_gets_adapters_and_nothing_else(tmp_path: Path) -> None:
    async def story() -> None:
        with vllm() as host:
            settings = EngineSettings(url=host.url, model="base")
            one = launcher(tmp_path, settings)
            engine = await one.start(store(tmp_path, base={"name": "base"}))
            assert await says(engine) == "r1"
            await one.stop("r1", engine)
            with pytest.raises(NotPromotable, match="not started here"):
                await one.start(store(tmp_path, "full", kind="merged", adapter=None))
        assert engines.read(tmp_path) == []

    run(story)


def test_an_engine_that_takes_no_adapters_is_told(tmp_path: Path) -> None:
    async def story() -> None:
        with vllm(adapters=False) as host:
            one = launcher(tmp_path, EngineSettings(url=host.url, model="base"))
            with pytest.raises(PromotionFailed, match="takes no adapters while it runs"):
                await one.start(store(tmp_path))

    run(story)


@pytest.mark.parametrize(
    ("status", "message", "told"),
    [
        (404, "No adapter found for {path}", "No adapter found for its folder below engine/"),
        (500, "LoRA rank 64 is greater than max_lora_rank 16.", "rank 64 is greater than"),
        (400, "The lora adapter has already been loaded.", "already been loaded"),
    ],
)
def test_an_engine_that_does_not_load_an_adapter_is_not_ready_and_its_reason_is_told(
    tmp_path: Path, status: int, message: str, told: str
) -> None:
    manifest = store(tmp_path)

    async def story() -> None:
        with vllm(refuses=(status, message)) as host:
            one = launcher(tmp_path, EngineSettings(url=host.url, model="base"))
            with pytest.raises(PromotionFailed, match=told) as failed:
                await one.start(manifest)
            assert str(tmp_path) not in str(failed.value)
            engine = one.attach(manifest)
            assert not await engine.ready()
            with pytest.raises(EngineDown, match=told):
                await says(engine)
            assert list((tmp_path / "engine" / "adapters").iterdir()) == []
            shutil.rmtree(tmp_path / "releases")
            assert not await engine.ready()
            await engine.close()

    run(story)


def test_the_probe_tells_the_same_weights_from_others() -> None:
    async def story() -> None:
        with vllm() as one, vllm(base="other") as two, vllm() as silent:
            base, other = HttpEngine(one.url, "base"), HttpEngine(two.url, "base")
            same = HttpEngine(silent.url, "base")
            assert await probe.answers(base)
            assert await probe.differ(other, base) and not await probe.differ(same, base)
            for engine in (base, other, same):
                await engine.close()

    run(story)


def test_texts_that_differ_now_and_then_are_rounding() -> None:
    async def story() -> None:
        with vllm(base="A|B") as one, vllm(base="A") as two, vllm(base="C|D") as three:
            unsteady, base, other = (HttpEngine(at.url, "base") for at in (one, two, three))
            assert not await probe.differ(unsteady, base)
            assert await probe.differ(other, base)
            for engine in (unsteady, base, other):
                await engine.close()

    run(story)
