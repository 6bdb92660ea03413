"""A release is whole and unchanged, or it is refused with the file's name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from kb import release
from kb.errors import AlreadyExists, BadData
from tests.kb.releases import manifest, store


def test_what_is_written_is_read_back_and_listed(tmp_path: Path) -> None:
    written = store(tmp_path, "r1")
    assert written == release.read(tmp_path / "releases" / "r1")
    assert set(written.files) == {
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
    }
    assert [one.id for one in release.listed(tmp_path)] == ["r1"]


def test_an_interrupted_release_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"no .*gone to release"):
        release.write(tmp_path, manifest("r1"), {"adapter": tmp_path / "gone"})
    (tmp_path / "releases" / "r2" / "adapter").mkdir(parents=True)  # killed before its manifest
    assert release.listed(tmp_path) == []
    assert not list((tmp_path / "releases").glob(".*"))


def test_a_release_is_never_overwritten(tmp_path: Path) -> None:
    store(tmp_path, "r1")
    with pytest.raises(AlreadyExists):
        store(tmp_path, "r1")


def change(place: Path) -> None:
    (place / "adapter" / "adapter_model.safetensors").write_bytes(b"other")


def remove(place: Path) -> None:
    (place / "adapter" / "adapter_model.safetensors").unlink()


def add(place: Path) -> None:
    (place / "adapter" / "adapter_model.bin").write_bytes(b"smuggled")


def link(place: Path) -> None:
    remove(place)
    (place / "adapter" / "adapter_model.safetensors").symlink_to(place / "release.json")


def tear(place: Path) -> None:
    (place / "release.json").write_text('{"id": "r1"')


def lose(place: Path) -> None:
    (place / "release.json").unlink()


def test_a_file_that_the_disk_does_not_give_back_is_named_without_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(file: Path) -> str:
        raise OSError(5, "Input/output error", str(file))

    store(tmp_path)
    monkeypatch.setattr(release, "sha256", fails)
    with pytest.raises(BadData, match="cannot be read: Input/output error") as failed:
        release.read(tmp_path / "releases" / "r1")
    assert str(tmp_path) not in str(failed.value)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (change, "adapter/adapter_model.safetensors is not what was released"),
        (remove, "adapter/adapter_model.safetensors is missing"),
        (add, "adapter/adapter_model.bin is not in its manifest"),
        (link, "adapter/adapter_model.safetensors is a link"),
        (tear, "release.json cannot be read"),
        (lose, "release.json is missing"),
    ],
)
def test_a_harmed_release_is_refused_naming_the_file(
    tmp_path: Path, harm: Callable[[Path], None], said: str
) -> None:
    store(tmp_path, "r1")
    harm(tmp_path / "releases" / "r1")
    with pytest.raises(BadData, match=f"release r1: {said}"):
        release.read(tmp_path / "releases" / "r1")


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"format": 2, "new": 1}, "format 2, newer than this program"),
        ({"formt": 1}, "formt"),
        ({"files": {"../../etc/passwd": "0" * 64}}, "leaves the folder"),
        ({"files": {"/etc/passwd": "0" * 64}}, "leaves the folder"),
        ({"id": "r2"}, "that of r2"),
        ({"kind": "merged"}, "adapter"),
        ({"files": {}}, "needs a folder adapter/"),
    ],
)
def test_a_manifest_that_cannot_be_trusted_is_refused(
    tmp_path: Path, said: dict[str, Any], match: str
) -> None:
    store(tmp_path, "r1")
    file = tmp_path / "releases" / "r1" / "release.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | said))
    with pytest.raises(BadData, match=match):
        release.read(file.parent)
    (listed,) = release.listed(tmp_path)
    assert listed.manifest is None and match in listed.problem


@pytest.mark.parametrize("name", ["base", "vademecum", "../r1", "R1", "", ".r1", "a b"])
def test_an_id_that_means_something_else_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValidationError):
        manifest(name)
    with pytest.raises(BadData):
        release.folder(tmp_path, name)


def test_the_succession_survives_and_begins_with_the_base(tmp_path: Path) -> None:
    assert release.succession(tmp_path) == ["base"]
    release.succeed(tmp_path, ["r2", "r1", "base"])
    assert release.succession(tmp_path) == ["r2", "r1", "base"]
    assert release.current(tmp_path) == "r2"
    (tmp_path / "releases" / "current").write_text("../../r1\n")
    with pytest.raises(BadData, match="no id"):
        release.current(tmp_path)


def test_weights_are_known_by_their_hash(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "config.json").write_text("{}")
    before = release.weights(tmp_path)
    assert set(before) == {"model.safetensors"}
    (tmp_path / "model.safetensors").write_bytes(b"others")
    assert release.weights(tmp_path) != before
