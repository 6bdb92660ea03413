"""The release that comes with the house."""

from pathlib import Path

import pytest

from kb import release, shipped
from kb.errors import BadData
from kb.manifest import BASE as BARE
from tests.kb.releases import BASE, store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store(tmp_path / "house", "old", created="2026-11-24T08:00:00Z")
    store(tmp_path / "house", "new")
    return tmp_path / "house" / "releases"


def test_the_newest_becomes_current_and_a_rollback_leads_to_the_base(
    tmp_path: Path, folder: Path
) -> None:
    offered = shipped.offered(tmp_path, BASE, folder)
    assert offered is not None and offered.id == "new"
    shipped.adopt(tmp_path, offered, folder)
    assert release.succession(tmp_path) == ["new", BARE]
    assert release.read(release.folder(tmp_path, "new")) == offered


@pytest.mark.parametrize("chosen", [BARE, "mine"])
def test_what_somebody_chose_stays(tmp_path: Path, folder: Path, chosen: str) -> None:
    release.succeed(tmp_path, [chosen])
    assert shipped.offered(tmp_path, BASE, folder) is None


def test_another_base_is_offered_none(tmp_path: Path, folder: Path) -> None:
    assert shipped.offered(tmp_path, "bundled:other", folder) is None
    assert shipped.offered(tmp_path, BASE, tmp_path / "nowhere") is None


def test_a_start_that_was_cut_off_is_gone_on_with(tmp_path: Path, folder: Path) -> None:
    offered = shipped.offered(tmp_path, BASE, folder)
    assert offered is not None
    shipped.adopt(tmp_path, offered, folder)
    (tmp_path / "releases" / "current").unlink()
    shipped.adopt(tmp_path, offered, folder)
    assert release.current(tmp_path) == "new"


def test_a_damaged_one_is_not_taken(tmp_path: Path, folder: Path) -> None:
    offered = shipped.offered(tmp_path, BASE, folder)
    assert offered is not None
    (folder / "new" / release.ADAPTER / "adapter_model.safetensors").write_bytes(b"other")
    with pytest.raises(BadData, match=r"adapter_model\.safetensors"):
        shipped.adopt(tmp_path, offered, folder)
    assert release.current(tmp_path) == BARE
