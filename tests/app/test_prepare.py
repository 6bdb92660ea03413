"""Which home begins with the release that comes with the house."""

from pathlib import Path
from typing import Any

import pytest

from app import prepare
from kb import shipped
from kb.settings import Configuration
from tests.kb.releases import manifest

OURS = manifest("ours", embedder="bundled:multilingual-e5-small")


@pytest.fixture(autouse=True)
def on_offer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "offered", lambda home, base: OURS)


def configuration(home: Path, **tables: dict[str, Any]) -> Configuration:
    return Configuration(home, tables, "test")


def test_a_home_with_our_base_and_embedder_begins_with_it(tmp_path: Path) -> None:
    assert prepare.to_adopt(configuration(tmp_path)) == OURS
    assert prepare.is_needed(configuration(tmp_path))


@pytest.mark.parametrize(
    "tables",
    [
        {"engine": {"url": "http://127.0.0.1:9"}},
        {"engine": {"model": "/srv/another"}},
        {"kb": {"embedder": "/srv/another"}},
    ],
)
def test_where_it_does_not_fit_it_is_left(tmp_path: Path, tables: dict[str, Any]) -> None:
    assert prepare.to_adopt(configuration(tmp_path, **tables)) is None


def test_of_another_prompt_it_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = OURS.model_copy(update={"prompt_version": 0})
    monkeypatch.setattr(shipped, "offered", lambda home, base: old)
    assert prepare.to_adopt(configuration(tmp_path)) is None
