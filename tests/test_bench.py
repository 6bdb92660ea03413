"""The benchmarks of the knowledge base run, and tell when one of them does not."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bench.cutting import windows

pytestmark = pytest.mark.slow


def bench(*command: str, data: Path = Path("nowhere")) -> tuple[int, Any]:
    """Exit code and the JSON document that a benchmark prints last."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        env={**os.environ, "VADEMECUM_DATA": str(data)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("tokens", [32, 160])
def test_windows_are_spans_of_the_text_that_share_halves_and_leave_nothing_out(tokens: int) -> None:
    text = "".join(f"The {n}th rule says what the {n}th officer signs. " for n in range(60))
    found = windows(tokens)(text)
    assert all(text[piece.start : piece.end] == piece.text for piece in found)
    assert found[0].start == 0 and found[-1].end == len(text.rstrip())
    assert all(a.start < b.start < a.end for a, b in pairwise(found))


def test_what_rebuilding_and_compaction_cost_is_measured_while_searches_go_on() -> None:
    code, found = bench("bench.remake", "--passages", "300", "--json")
    assert code == 0 and found["passages"] >= 300
    assert len(found["rows"]) == 4
    for row in found["rows"]:
        assert row["searches"] > 0 and row["search p95 ms"] >= row["search p50 ms"] > 0
        assert (row["seconds"] > 0) is (row["what"] != "nothing")


@pytest.mark.skipif(bool(find_spec("txtai")), reason="txtai is installed")
def test_a_benchmark_that_fails_is_named_and_the_others_are_run(tmp_path: Path) -> None:
    """Peers that are not installed are none."""
    code, found = bench("bench.kb", "--only", "formats,peers", data=tmp_path)
    assert code == 1
    assert "bench.formats ended with 1" in found["formats"]["failed"]
    assert "failed" not in found["peers"] and "txtai" in found["peers"]["not installed"]
