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
    house = tmp_path / "house"
    store(house, "r2", created="2026-11-26T00:00:00Z")
    store(house, "r1", created="2026-11-27T00:00:00Z")
    store(house, "other", base={"name": "bundled:other"})
    return house / "releases"


def test_those_of_the_base_are_offered_the_newest_last(folder: Path) -> None:
    assert [one.id for one in shipped.of(BASE, folder)] == ["r2", "r1"]


def test_one_is_brought_once_and_whole(tmp_path: Path, folder: Path) -> None:
    _, newest = shipped.of(BASE, folder)
    assert shipped.bring(tmp_path, newest, folder)
    assert not shipped.bring(tmp_path, newest, folder)
    assert [one.id for one in release.listed(tmp_path)] == ["r1"]
    assert release.read(release.folder(tmp_path, "r1")) == release.read(folder / "r1")
    assert release.current(tmp_path) == BARE


def test_a_release_of_that_name_stays_as_it_is(tmp_path: Path, folder: Path) -> None:
    mine = store(tmp_path, metrics={"mine": 1.0})
    assert not shipped.bring(tmp_path, shipped.of(BASE, folder)[-1], folder)
    assert release.read(release.folder(tmp_path, "r1")) == mine


def test_a_damaged_one_is_not_brought(tmp_path: Path, folder: Path) -> None:
    (folder / "r1" / release.ADAPTER / "adapter_model.safetensors").write_bytes(b"other")
    with pytest.raises(BadData, match=r"adapter_model\.safetensors"):
        shipped.bring(tmp_path, shipped.of(BASE, folder)[-1], folder)
    assert not release.listed(tmp_path)


def test_a_home_begins_with_it_and_can_go_back_to_the_bare_model(
    tmp_path: Path, folder: Path
) -> None:
    newest = shipped.of(BASE, folder)[-1]
    shipped.bring(tmp_path, newest, folder)
    assert shipped.begin(tmp_path, newest)
    assert release.succession(tmp_path) == ["r1", BARE]


@pytest.mark.parametrize("chosen", [[BARE], ["mine", BARE]])
def test_what_somebody_chose_stays(tmp_path: Path, folder: Path, chosen: list[str]) -> None:
    release.succeed(tmp_path, chosen)
    assert not shipped.begin(tmp_path, shipped.of(BASE, folder)[-1])
    assert release.succession(tmp_path) == chosen


def test_what_ships_is_whole_small_proven_and_of_stated_licences() -> None:
    (place,) = shipped.FOLDER.iterdir()
    manifest = release.read(place)
    assert manifest.base.name == BASE and manifest.prompt_version == PROMPT_VERSION
    assert manifest.embedder == KbSettings().embedder_identity
    assert manifest.gate.passed
    assert all(source.licence not in ("", "not stated") for source in manifest.data)
    assert sum(f.stat().st_size for f in place.rglob("*") if f.is_file()) <= 12_000_000
