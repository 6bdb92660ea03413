"""What this machine computes with: bfloat16, attention, Liger, and how much memory was used.

Asks once, at the start of a run. Knows no model and no settings.
"""

import importlib.util
import resource
import sys

import torch


def has_bf16() -> bool:
    """Whether bfloat16 is quicker than float32 here.

    Of CPUs, those with AMX: with AVX512_BF16 alone a step of the bundled model took 1.6 times the
    processor time of float32 (2026-11-24: 92 against 147 tokens per second; torch 2.13).
    """
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


def attention() -> str:
    """Flash attention where it is installed for a GPU, PyTorch's own elsewhere."""
    flash = torch.cuda.is_available() and importlib.util.find_spec("flash_attn") is not None
    return "flash_attention_2" if flash else "sdpa"


def has_liger() -> bool:
    return torch.cuda.is_available() and importlib.util.find_spec("liger_kernel") is not None


def peak_mb() -> float:
    """Most memory that this process has held: on the GPU where there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (2**20 if sys.platform == "darwin" else 2**10)


def name() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return (
        f"{torch.cpu.get_capabilities().get('cpu_name', 'CPU')}, {torch.get_num_threads()} threads"
    )
