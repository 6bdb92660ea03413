"""Command lines and environments of the children: what runs is what the settings say."""

import sys
from pathlib import Path

import pytest

from app import children
from app.engines import Wanted
from app.settings import AppSettings, EngineSettings

BARE = Wanted(release="base", port=8001)


def test_the_engine_gets_the_settings_and_stays_on_loopback(tmp_path: Path) -> None:
    settings = EngineSettings(port=9001, max_model_len=1024, max_streams=4, extra_args=("--x", "y"))
    wanted = Wanted(release="base", port=9001)
    spec = children.engine(settings, wanted, "org/model", tmp_path, 2, cpu=True)
    said = " ".join(spec.command)
    assert spec.command[0] == sys.executable
    assert "--model org/model --served-model-name base --host 127.0.0.1 --port 9001" in said
    assert "--max-model-len 1024 --max-num-seqs 4" in said
    assert spec.command[-2:] == ("--x", "y")
    assert spec.health_url == "http://127.0.0.1:9001/health"


def test_the_engine_stays_off_the_network_and_within_the_home(tmp_path: Path) -> None:
    local = children.engine(
        EngineSettings(), BARE, str(tmp_path), tmp_path, 2, cpu=True
    ).environment
    assert local["HF_HUB_OFFLINE"] == "1"
    assert local["VLLM_NO_USAGE_STATS"] == local["DO_NOT_TRACK"] == "1"
    assert local["VLLM_CACHE_ROOT"] == str(tmp_path / "engine")
    assert local["VLLM_CPU_KVCACHE_SPACE"] == "1"
    hub = children.engine(EngineSettings(), BARE, "org/model", tmp_path, 2, cpu=True).environment
    assert "HF_HUB_OFFLINE" not in hub


def test_an_engine_on_a_cpu_compiles_nothing_unless_it_is_told_to(tmp_path: Path) -> None:
    eager = children.engine(EngineSettings(), BARE, "m", tmp_path, 2, cpu=True)
    assert eager.environment["TORCH_COMPILE_DISABLE"] == "1"
    told = EngineSettings(extra_args=("--no-enforce-eager", "-O1"))
    compiled = children.engine(told, BARE, "m", tmp_path, 2, cpu=True)
    assert "TORCH_COMPILE_DISABLE" not in compiled.environment


def test_a_gpu_engine_gets_no_flags_for_cpus(tmp_path: Path) -> None:
    spec = children.engine(EngineSettings(), BARE, "org/model", tmp_path, 2, cpu=False)
    assert "--enforce-eager" not in spec.command
    assert not any("CPU" in name for name in spec.environment)


def test_adapters_are_loaded_at_run_time_only_where_that_is_quick(tmp_path: Path) -> None:
    settings = EngineSettings(max_adapter_rank=128)
    gpu = children.engine(settings, BARE, "org/model", tmp_path, 2, cpu=False)
    assert "--enable-lora --max-loras 2 --max-lora-rank 128" in " ".join(gpu.command)
    assert gpu.environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
    asked = EngineSettings(runtime_adapters=True)
    assert "--enable-lora" in children.engine(asked, BARE, "m", tmp_path, 2, cpu=True).command
    for spec in (
        children.engine(settings, BARE, "org/model", tmp_path, 2, cpu=True),
        children.engine(EngineSettings(runtime_adapters=False), BARE, "m", tmp_path, 2, cpu=False),
    ):
        assert "--enable-lora" not in spec.command
        assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in spec.environment


def test_a_release_with_its_own_weights_has_an_engine_that_cannot_stop_the_house(
    tmp_path: Path,
) -> None:
    wanted = Wanted(release="r1", port=9100, model="/weights/r1")
    spec = children.engine(EngineSettings(), wanted, "org/model", tmp_path, 2, cpu=False)
    said = " ".join(spec.command)
    assert "--model /weights/r1 --served-model-name base --host 127.0.0.1 --port 9100" in said
    assert (spec.name, spec.permanent) == ("engine-r1", frozenset())
    assert spec.health_url == "http://127.0.0.1:9100/health" and "--enable-lora" not in said
    first = children.engine(EngineSettings(), BARE, "org/model", tmp_path, 2, cpu=False)
    assert (first.name, first.permanent) == ("engine", frozenset({2, 3}))


def test_an_engine_beside_another_is_not_bound_to_the_same_cores(tmp_path: Path) -> None:
    beside = Wanted(release="r1", port=9100, model="/weights/r1")
    for wanted, bound in ((BARE, True), (beside, False)):
        spec = children.engine(EngineSettings(), wanted, "org/model", tmp_path, 4, cpu=True)
        assert (spec.environment.get("VLLM_CPU_OMP_THREADS_BIND") != "nobind") == bound
        assert spec.environment.get("OMP_NUM_THREADS") == (None if bound else "3")


@pytest.mark.parametrize(("cores", "threads"), [(1, "1"), (2, "1"), (8, "7")])
def test_server_and_ingest_leave_a_core_to_others(cores: int, threads: str, tmp_path: Path) -> None:
    for spec in (
        children.ingest(tmp_path, cores),
        children.server(AppSettings(), tmp_path, cores),
    ):
        assert spec.environment["OMP_NUM_THREADS"] == threads
        assert spec.environment["VADEMECUM_HOME"] == str(tmp_path)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::1", "http://[::1]:8000"),
        ("10.0.0.7", "http://10.0.0.7:8000"),
    ],
)
def test_the_servers_address_is_one_that_a_browser_here_can_open(host: str, url: str) -> None:
    assert children.server_url(AppSettings(host=host)) == url
