"""What a run's heap holds free goes back to the system between passes and at held-out losses."""

from pathlib import Path

import pytest

from finetune import trimming
from finetune.train import train
from tests.finetune.small_runs import run

PIECE = 100_000
"""Bytes, below what glibc takes from the system by itself."""


def resident() -> int:
    """Bytes of memory that this process holds."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(status.split("VmRSS:")[1].split()[0])


def test_free_pieces_between_what_is_in_use_go_back() -> None:
    pieces = [bytearray(PIECE) for _ in range(2000)]
    held = pieces[::2]
    del pieces
    before = resident()
    trimming.trim()
    assert before - resident() > 0.8 * len(held) * PIECE


def test_it_is_done_before_each_pass_and_after_each_held_out_loss(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trims: list[None] = []
    monkeypatch.setattr(trimming, "trim", lambda: trims.append(None))
    settings = run(tmp_path, tiny_model, num_train_epochs=2, eval_steps=1000)
    done = train(settings, tmp_path, lambda said: None)
    losses = len(done["losses"]) - 1  # of held-out rows, measured once, at the end
    assert losses > 0 and len(trims) == 2 + losses
