"""The releases that come with the house."""

from pathlib import Path

import pytest

from kb import release, shipped
from kb.errors import BadData
from kb.manifest import BASE as BARE
from kb.prompt import PROMPT_VERSION
from kb.settings import KbSettings
from tests.kb.releases import BASE, store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store(tmp_path / "house")
    store(tmp_path / "house", "other", base={"name": "bundled:other"})
    return tmp_path / "house" / "releases"


def test_those_of_the_base_are_there_once_and_nothing_else_is_served(
    tmp_path: Path, folder: Path
) -> None:
    assert shipped.bring(tmp_path, BASE, folder) == ["r1"]
    assert shipped.bring(tmp_path, BASE, folder) == []
    assert [one.id for one in release.listed(tmp_path)] == ["r1"]
    assert release.read(release.folder(tmp_path, "r1")) == release.read(folder / "r1")
    assert release.current(tmp_path) == BARE


def test_a_release_of_that_name_stays_as_it_is(tmp_path: Path, folder: Path) -> None:
    mine = store(tmp_path, metrics={"mine": 1.0})
    assert shipped.bring(tmp_path, BASE, folder) == []
    assert release.read(release.folder(tmp_path, "r1")) == mine


def test_a_damaged_one_is_not_brought(tmp_path: Path, folder: Path) -> None:
    (folder / "r1" / release.ADAPTER / "adapter_model.safetensors").write_bytes(b"other")
    with pytest.raises(BadData, match=r"adapter_model\.safetensors"):
        shipped.bring(tmp_path, BASE, folder)
    assert not release.listed(tmp_path)


def test_what_ships_is_whole_small_proven_and_of_stated_licences() -> None:
    (place,) = shipped.FOLDER.iterdir()
    manifest = release.read(place)
    assert manifest.base.name == BASE and manifest.prompt_version == PROMPT_VERSION
    assert manifest.embedder == KbSettings().embedder_identity
    assert manifest.gate.passed
    assert all(source.licence not in ("", "not stated") for source in manifest.data)
    assert sum(f.stat().st_size for f in place.rglob("*") if f.is_file()) <= 12_000_000
