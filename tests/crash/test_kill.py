"""Whenever the writer is killed: nothing acknowledged is lost, nothing deleted comes back."""

import os
import random
import secrets
from pathlib import Path

import pytest

from tests.crash.rounds import Rounds

SHORT = 8
ROUNDS = int(os.environ.get("VADEMECUM_SOAK_ROUNDS", SHORT))
SEED = int(os.environ.get("VADEMECUM_SOAK_SEED", secrets.randbits(32)))
SETTINGS = {
    "VADEMECUM_INGEST__SETTLE_SECONDS": "0.02",
    # Whenever it is idle and anything is dead, so that kills hit compaction too.
    "VADEMECUM_INGEST__COMPACT_SECONDS": "0",
}


@pytest.mark.slow
@pytest.mark.timeout(60 + 30 * ROUNDS)
def test_a_writer_killed_at_random_moments_loses_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def say(line: str) -> None:
        with capsys.disabled():
            print(f"\nkill rounds, seed {SEED}: {line}", end="", flush=True)  # noqa: T201

    rounds = Rounds(tmp_path, random.Random(SEED), SETTINGS)
    say(f"{ROUNDS} to go")
    rounds.run(ROUNDS, say)
    compacted = (tmp_path / "ingest.log").read_text().count("compaction is done")
    say(f"done, killed while {rounds.kills}, {compacted} compactions came to their end")
