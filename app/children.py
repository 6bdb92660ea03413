"""What `vademecum up` starts: the command line and environment of engine, ingest and server.

Pure: settings -> `ChildSpec`. Knows vLLM's flags and why they are set
(docs/decisions/005-engine-start.md); starts nothing.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata, util
from pathlib import Path

from app.engines import Wanted, name, takes_adapters
from app.settings import AppSettings, EngineSettings
from kb.errors import BadConfiguration
from kb.manifest import BASE

BAD_CONFIGURATION = 3
ENGINE_MODEL = "base"
"""The base model's name within the engine; the server shows its own."""
LOOPBACK = "127.0.0.1"
_WILDCARDS = {"0.0.0.0", "::", ""}


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """A child to run: its name, command line, what its environment adds, how it is looked after."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    health_url: str = ""
    """Asked now and then; a child that once answered and then fails three times starts anew."""
    permanent: frozenset[int] = frozenset({BAD_CONFIGURATION})
    """Exit codes after which starting again cannot help."""


def server_url(app: AppSettings) -> str:
    """Where a client on this machine finds the server."""
    host = LOOPBACK if app.host in _WILDCARDS else app.host
    return f"http://[{host}]:{app.port}" if ":" in host else f"http://{host}:{app.port}"


def engine(
    settings: EngineSettings, wanted: Wanted, base: str, home: Path, cores: int, *, cpu: bool
) -> ChildSpec:
    """vLLM's OpenAI server for the weights that are wanted; `base` is the folder or hub id of the
    bare model's. `cpu` tells which build of vLLM is installed."""
    model = wanted.model or base
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", model, "--served-model-name", ENGINE_MODEL]
    command += ["--host", LOOPBACK, "--port", str(wanted.port)]
    command += ["--max-model-len", str(settings.max_model_len)]
    command += ["--max-num-seqs", str(settings.max_streams)]
    adapters = wanted.release == BASE and takes_adapters(settings, cpu=cpu)
    if adapters:
        command += ["--enable-lora", "--max-loras", "2"]  # the current one, and the one before
        command += ["--max-lora-rank", str(settings.max_adapter_rank)]
    command += [*(_cpu_flags() if cpu else ()), *settings.extra_args]
    return ChildSpec(
        name(wanted.release),
        tuple(command),
        {
            "VLLM_CACHE_ROOT": str(home / "engine"),
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            **({"HF_HUB_OFFLINE": "1"} if Path(model).is_dir() else {}),
            **({"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"} if adapters else {}),
            **(_cpu_environment(settings, cores, wanted.port != settings.port) if cpu else {}),
        },
        health_url=f"http://{LOOPBACK}:{wanted.port}/health",
        # vLLM ends with 2 for arguments it does not know ([engine] extra_args). Only the engine of
        # the start may end everything: a release that cannot run must not.
        permanent=frozenset({2, BAD_CONFIGURATION} if wanted.port == settings.port else ()),
    )


def ingest(home: Path, cores: int) -> ChildSpec:
    command = (sys.executable, "-m", "ingest.cli", "run")
    return ChildSpec("ingest", command, _quiet(home, cores))


def server(app: AppSettings, home: Path, cores: int) -> ChildSpec:
    return ChildSpec(
        "server",
        (sys.executable, "-m", "app.serve"),
        _quiet(home, cores) | {"VADEMECUM_APP__PORT": str(app.port)},
        health_url=f"{server_url(app)}/health/live",
    )


def prepare(home: Path) -> ChildSpec:
    """Unpacks weights and ends. A process of its own: torch stays in memory for good."""
    return ChildSpec("prepare", (sys.executable, "-m", "app.prepare"), _quiet(home, 2))


def _quiet(home: Path, cores: int) -> dict[str, str]:
    """One core is left to the others: three processes that each take all cores are slower."""
    return {
        "VADEMECUM_HOME": str(home),
        "OMP_NUM_THREADS": str(max(1, cores - 1)),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }


def _cpu_flags() -> tuple[str, ...]:
    return ("--enforce-eager",)


def _cpu_environment(settings: EngineSettings, cores: int, beside: bool) -> dict[str, str]:
    """`beside`: another engine runs. vLLM would bind both to the same cores, and the new one, which
    computes nothing yet, gets a fiftieth of them: it goes where there is room instead."""
    room = {"VLLM_CPU_KVCACHE_SPACE": str(settings.kv_cache_gb)}
    if "--no-enforce-eager" not in settings.extra_args:
        # Eager mode alone leaves what is compiled for the first logprobs that are asked for: C++,
        # for minutes on a busy machine, and without a compiler the engine ends.
        room["TORCH_COMPILE_DISABLE"] = "1"
    if beside:
        room |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(max(1, cores - 1))}
    return room


def must_have_engine() -> None:
    """Raises BadConfiguration."""
    if util.find_spec("vllm") is None:
        raise BadConfiguration(
            "no engine is installed: install vllm (requirements/), or set [engine] url to a"
            " running OpenAI-compatible one"
        )


def is_cpu_build() -> bool:
    """Whether the vLLM that is installed is the one for CPUs."""
    try:
        metadata.distribution("vllm-cpu")
    except metadata.PackageNotFoundError:
        return False
    return True
