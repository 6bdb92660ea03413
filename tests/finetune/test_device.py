"""A process computes on the GPU that its launcher has for it."""

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
