"""What this machine computes with: bfloat16, attention, Liger, and how much memory was used.

Asks once, at the start of a run. Knows no model and no settings.
"""

import importlib.util
import resource
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil
import torch

from finetune.memory import Machine

_STATUS, _GROUP = Path("/proc/self/status"), Path("/sys/fs/cgroup")


def take(environ: Mapping[str, str]) -> None:
    """Of several GPUs, the one that the launcher has for this process, before any weights are read:
    4-bit ones are put on the current GPU at once, and that would be the first for all."""
    if torch.cuda.is_available() and "LOCAL_RANK" in environ:
        torch.cuda.set_device(int(environ["LOCAL_RANK"]))


def processes(environ: Mapping[str, str]) -> int:
    """That train together, as torchrun and accelerate say."""
    return int(environ.get("WORLD_SIZE", "1"))


def has_bf16() -> bool:
    """Whether bfloat16 is quicker than float32 here.

    Of CPUs, those with AMX: there 305 and 406 tokens per second against 278 and 275 (LoRA of the
    bundled model, 2026-11-29, torch 2.13). With AVX512_BF16 alone a step took 1.6 times the
    processor time of float32 (2026-11-24: 92 against 147 tokens per second).
    """
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


def attention(bf16: bool) -> str:
    """Flash attention where it is installed for a GPU, PyTorch's own elsewhere, and in float32,
    which flash attention does not compute in."""
    installed = torch.cuda.is_available() and importlib.util.find_spec("flash_attn") is not None
    flash = installed and bf16
    return "flash_attention_2" if flash else "sdpa"


def has_liger() -> bool:
    return torch.cuda.is_available() and importlib.util.find_spec("liger_kernel") is not None


def peak_mb() -> float:
    """Most memory that this process has held: on the GPU where there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    if _STATUS.is_file():
        # getrusage would also count what the process that started this one held.
        said = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
        return int(said["VmHWM"].split()[0]) / 2**10
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (2**20 if sys.platform == "darwin" else 2**10)


def machine(bf16: bool | None = None) -> Machine:
    """This one, with the memory that is free now; `bf16` as the configuration says."""
    computes = has_bf16() if bf16 is None else bf16
    if torch.cuda.is_available():
        return Machine("cuda", torch.cuda.mem_get_info()[0], computes, name())
    return Machine("cpu", min(psutil.virtual_memory().available, _allowed()), computes, name())


def _allowed() -> int:
    """What a container may still take (cgroup v2): its limit, less what it cannot give back."""
    limit, held = _GROUP / "memory.max", _GROUP / "memory.stat"
    if not limit.is_file() or (most := limit.read_text().strip()) == "max":
        return sys.maxsize
    stat = dict(line.split() for line in held.read_text().splitlines())
    return int(most) - int(stat["anon"]) - int(stat.get("shmem", 0))


def name() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return (
        f"{torch.cpu.get_capabilities().get('cpu_name', 'CPU')}, {torch.get_num_threads()} threads"
    )
