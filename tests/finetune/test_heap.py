"""A run on a CPU begins without glibc's cache of small blocks, and with few compiled shapes."""

import sys
from typing import Any

import pytest

from finetune import heap, start


def test_both_caches_are_small_unless_somebody_chose() -> None:
    assert heap.environment({"A": "b"}) == {
        "A": "b",
        heap.TUNABLES: "glibc.malloc.tcache_count=0",
        heap.SHAPES: "64",
    }
    chosen = {heap.TUNABLES: "glibc.malloc.tcache_count=9", heap.SHAPES: "1024"}
    assert heap.environment(chosen) == chosen
    others = heap.environment({heap.TUNABLES: "glibc.malloc.check=3"})
    assert others[heap.TUNABLES] == "glibc.malloc.check=3:glibc.malloc.tcache_count=0"


def test_only_training_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Any] = []

    def execve(*call: Any) -> None:
        begun.append(call)
        raise SystemExit(0)

    monkeypatch.setattr("os.execve", execve)
    monkeypatch.delenv(heap.TUNABLES, raising=False)
    monkeypatch.delenv(heap.SHAPES, raising=False)
    monkeypatch.setattr("sys.argv", ["finetune", "train", "x.yaml"])
    with pytest.raises(SystemExit):
        start.main()
    ((program, command, environ),) = begun
    assert program == sys.executable and command[-3:] == ["finetune.cli", "train", "x.yaml"]
    assert environ[heap.TUNABLES] == "glibc.malloc.tcache_count=0" and environ[heap.SHAPES]
    monkeypatch.setenv(heap.TUNABLES, environ[heap.TUNABLES])
    monkeypatch.setenv(heap.SHAPES, environ[heap.SHAPES])
    monkeypatch.setattr("finetune.cli.main", lambda: 0)
    assert start.main() == 0 and len(begun) == 1
    monkeypatch.delenv(heap.TUNABLES)
    monkeypatch.setattr("sys.argv", ["finetune", "list"])
    assert start.main() == 0 and len(begun) == 1
