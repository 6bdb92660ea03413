"""What a home serves before anybody has chosen."""

from pathlib import Path
from typing import Any

import pytest

from app.beginning import begin
from app.settings import EngineSettings
from kb import release, shipped
from kb.manifest import BASE as BARE
from kb.settings import Configuration

SHIPPED = shipped.of(EngineSettings().model)[-1].id


def start(home: Path, **tables: dict[str, Any]) -> list[str]:
    said: list[str] = []
    begin(Configuration(home, tables, "the test"), said.append)
    return said


def test_a_fresh_home_begins_with_the_release_that_ships_and_says_so_once(tmp_path: Path) -> None:
    came, begun = start(tmp_path)
    assert SHIPPED in came and SHIPPED in begun and "rollback" in begun
    assert release.succession(tmp_path) == [SHIPPED, BARE]
    assert start(tmp_path) == []


def test_a_start_that_was_cut_off_after_the_copy_begins_with_it_all_the_same(
    tmp_path: Path,
) -> None:
    shipped.bring(tmp_path, shipped.of(EngineSettings().model)[-1])
    start(tmp_path)
    assert release.current(tmp_path) == SHIPPED


def test_who_went_back_to_the_bare_model_stays_there(tmp_path: Path) -> None:
    release.succeed(tmp_path, [BARE, SHIPPED])
    start(tmp_path)
    assert release.current(tmp_path) == BARE


@pytest.mark.parametrize(
    "tables",
    [
        {"engine": {"url": "http://127.0.0.1:9"}},
        {"engine": {"model": "org/other"}},
        {"kb": {"embedder": "org/other"}},
    ],
)
def test_what_it_was_not_made_for_begins_with_the_bare_model(
    tmp_path: Path, tables: dict[str, Any]
) -> None:
    start(tmp_path, **tables)
    assert release.current(tmp_path) == BARE
