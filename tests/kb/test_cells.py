"""The file of cells: whole or not at all, and damage is noticed wherever it is."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kb.cells import CELLS, Cells, read, remove, stamp, write
from kb.errors import StoreBroken, StoreDown
from tests.kb.bases import unit


def some(seed: int = 0, passages: int = 200) -> Cells:
    rng = np.random.default_rng(seed)
    ids = np.sort(rng.choice(10**6, passages, replace=False)).astype(np.int64)
    where = rng.integers(0, 5, passages).astype(np.int32)
    return Cells("fake-16", seed, unit(rng, 5, 16), ids, where)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    assert read(tmp_path) is None and stamp(tmp_path) is None
    write(tmp_path, some(7))
    found, expected = read(tmp_path), some(7)
    assert found is not None
    assert (found.embedder, found.generation) == ("fake-16", 7)
    assert np.array_equal(found.centres, expected.centres)
    assert np.array_equal(found.ids, expected.ids) and np.array_equal(found.cells, expected.cells)
    assert [file.name for file in tmp_path.iterdir()] == [CELLS]
    remove(tmp_path)
    assert read(tmp_path) is None


def test_the_cell_of_an_unknown_passage_is_minus_one() -> None:
    cells = some()
    asked = np.array([cells.ids[3], -5, cells.ids[-1], 10**7, cells.ids[0]], np.int64)
    assert cells.of(asked).tolist() == [cells.cells[3], -1, cells.cells[-1], -1, cells.cells[0]]
    none = Cells("e", 1, cells.centres, np.zeros(0, np.int64), np.zeros(0, np.int32))
    assert none.of(asked).tolist() == [-1] * 5


@pytest.mark.parametrize("seed", range(40))
def test_a_torn_file_is_never_taken_for_a_whole_one(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    write(tmp_path, some())
    file = tmp_path / CELLS
    content = bytearray(file.read_bytes())
    at = rng.randrange(len(content))
    match seed % 4:
        case 0:
            content = content[:at]
        case 1:
            content[at:] = bytes(b ^ 255 for b in content[at:])
        case 2:
            content[at] ^= 1 << rng.randrange(8)
        case _:
            content = bytearray(rng.randbytes(len(content)))
    file.write_bytes(content)
    with pytest.raises(StoreBroken, match="damaged"):
        read(tmp_path)


def test_a_full_disk_leaves_the_old_file_and_nothing_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, some(1))

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreDown, match="No space"):
        write(tmp_path, some(2))
    found = read(tmp_path)
    assert found is not None and found.generation == 1
    assert [file.name for file in tmp_path.iterdir()] == [CELLS]


def test_a_writer_killed_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from kb.cells import write\n"
        "from tests.kb.test_cells import some\n"
        "versions = [some(n, 20_000) for n in (1, 2)]\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    for version in versions: write(Path(sys.argv[1]), version)\n"
    )
    rng = random.Random(1)
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        time.sleep(rng.uniform(0.01, 0.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        found = read(tmp_path)
        if found is not None:  # else killed before the first was whole
            assert np.array_equal(found.cells, some(found.generation, 20_000).cells)
