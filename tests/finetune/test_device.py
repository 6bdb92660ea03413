"""A process computes on the GPU that its launcher has for it, with the kernels that are there."""

import importlib.util
from importlib.machinery import ModuleSpec

import pytest
import torch

from finetune import device


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of two GPUs that are not there, those that were made the current one."""
    made: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", made.append)
    return made


def test_each_process_takes_its_own_gpu(chosen: list[int]) -> None:
    device.take({"LOCAL_RANK": "1", "RANK": "5"})
    device.take({})
    assert chosen == [1]


@pytest.mark.parametrize("there", [True, False])
def test_flash_attention_and_liger_are_used_where_they_are_installed(
    chosen: list[int], monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: ModuleSpec(name, None) if there else None
    )
    assert device.has_liger() is there
    assert device.attention(bf16=True) == ("flash_attention_2" if there else "sdpa")
    assert device.attention(bf16=False) == "sdpa"  # flash attention has no float32


def test_without_a_gpu_neither_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: ModuleSpec(name, None))
    assert not device.has_liger() and device.attention(bf16=True) == "sdpa"
