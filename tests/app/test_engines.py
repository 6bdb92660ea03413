"""Which engines should run, as server and supervisor tell each other; with which a start begins."""

from pathlib import Path
from typing import Any

import pytest

from app import children, engines, prepare, up
from app.engines import Wanted
from app.fit import misfits
from app.settings import EngineSettings
from kb import release
from kb.chunking import VERSION
from kb.errors import BadData, ModelBroken
from kb.manifest import Manifest
from kb.prompt import PROMPT_VERSION
from kb.settings import Configuration, KbSettings
from tests.kb.releases import BASE, manifest, store

SETTINGS = EngineSettings()
KB = KbSettings(embedder="fake:64")  # as releases for tests say


class Start:
    """What `up` declares, and what it says about it."""

    def __init__(
        self, home: Path, settings: EngineSettings = SETTINGS, *, cpu: bool = True
    ) -> None:
        self.said: list[str] = []
        own = engines.own_at_start(home, settings, KB, cpu=cpu, report=self.said.append)
        self.engine = engines.own(home, own, 8001)


def test_what_is_declared_is_read_and_nothing_is_declared_at_first(tmp_path: Path) -> None:
    assert engines.read(tmp_path) == []
    wanted = [Wanted(release="base", port=8001), Wanted(release="r1", port=9, model="/m")]
    engines.write(tmp_path, wanted)
    assert engines.read(tmp_path) == wanted
    (tmp_path / "releases" / "engines.json").write_text('{"engines": [{"port": "x"}]}')
    with pytest.raises(BadData, match=r"engines\.json cannot be read"):
        engines.read(tmp_path)


def test_a_start_begins_with_the_current_release_alone(tmp_path: Path) -> None:
    assert Start(tmp_path).engine == Wanted(release="base", port=8001)
    store(tmp_path, "r1")
    release.succeed(tmp_path, ["r1", "base"])
    merged = str(tmp_path / "models" / "release-r1")
    own = Start(tmp_path).engine
    assert (own.release, own.port, own.model) == ("r1", 8001, merged)
    # Where adapters are quick, the base's engine, and the adapter on it.
    quick = Start(tmp_path, cpu=False)
    assert quick.engine == Wanted(release="base", port=8001) and quick.said == []


def test_a_start_with_another_base_begins_with_that_and_says_so(tmp_path: Path) -> None:
    store(tmp_path, "r1")
    release.succeed(tmp_path, ["r1", "base"])
    other = Start(tmp_path, EngineSettings(model="org/other"))
    assert other.engine.release == "base"
    assert "release r1 cannot be served" in other.said[0] and "org/other" in other.said[0]
    (tmp_path / "releases" / "r1" / "release.json").unlink()
    broken = Start(tmp_path)
    assert broken.engine.release == "base" and "release.json is missing" in broken.said[0]


@pytest.mark.parametrize(
    ("made", "why"),
    [
        ({"embedder": "org/other"}, "embedder org/other"),
        ({"prompt_version": PROMPT_VERSION + 1}, f"prompt version {PROMPT_VERSION + 1}"),
        ({"chunker": {"tokens": 99, "version": VERSION}}, "99 tokens"),
        (
            {"chunker": {"tokens": KB.chunk_tokens, "version": VERSION + 1}},
            f"chunker {VERSION + 1}",
        ),
    ],
)
def test_a_start_does_not_go_on_with_what_a_promotion_would_refuse(
    tmp_path: Path, made: dict[str, Any], why: str
) -> None:
    store(tmp_path, "r1", **made)
    release.succeed(tmp_path, ["r1", "base"])
    start = Start(tmp_path)
    assert start.engine.release == "base" and why in start.said[0]


@pytest.mark.parametrize("made", [{}, {"kind": "merged", "adapter": None}])
def test_a_start_does_not_go_on_with_a_release_that_lacks_a_file(
    tmp_path: Path, made: dict[str, Any]
) -> None:
    one = store(tmp_path, "r1", **made)
    release.succeed(tmp_path, ["r1", "base"])
    lost = next(path for path in one.files if path.endswith(".safetensors"))
    (tmp_path / "releases" / "r1" / lost).unlink()
    start = Start(tmp_path)
    assert start.engine.release == "base" and f"{lost} is missing" in start.said[0]


def test_a_start_neither_merges_nor_serves_an_adapter_that_was_altered(tmp_path: Path) -> None:
    store(tmp_path, "r1")
    release.succeed(tmp_path, ["r1", "base"])
    tables: dict[str, dict[str, Any]] = {
        "engine": {"runtime_adapters": False},
        "kb": {"embedder": KB.embedder},
    }
    configuration = Configuration(tmp_path, tables, "the test")
    assert prepare.to_merge(configuration) is not None
    (tmp_path / "releases" / "r1" / "adapter" / "adapter_model.safetensors").write_bytes(b"other")
    assert prepare.to_merge(configuration) is None
    start = Start(tmp_path)
    assert start.engine.release == "base" and "is not what was released" in start.said[0]


def test_a_start_begins_with_the_base_where_a_release_cannot_be_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(home: Path, manifest: Manifest, base: str) -> None:
        raise ModelBroken("the disk is full")

    (tmp_path / "config.json").write_text("{}")
    settings = EngineSettings(model=str(tmp_path), runtime_adapters=False)
    store(tmp_path, "r1", base={"name": settings.model})
    release.succeed(tmp_path, ["r1", "base"])
    tables = {"engine": settings.model_dump(), "kb": {"embedder": KB.embedder}}
    monkeypatch.setattr(prepare, "load", lambda: Configuration(tmp_path, tables, "the test"))
    monkeypatch.setattr(prepare, "merge", fails)
    assert prepare.main() == 0
    assert "the disk is full" in capsys.readouterr().err
    monkeypatch.setattr(children, "must_have_engine", lambda: None)
    (first,) = up._engines(tmp_path, settings, KB, 2)()
    assert first.name == "engine"
    assert "the base answers: release r1" in capsys.readouterr().err


def test_a_server_goes_on_with_the_engine_that_the_start_began_with(tmp_path: Path) -> None:
    store(tmp_path, "r1")
    release.succeed(tmp_path, ["r1", "base"])
    said: list[str] = []

    def goes_on(*, cpu: bool = True) -> str | None:
        one = engines.going_on(tmp_path, SETTINGS, KB, cpu=cpu, report=said.append)
        return one.id if one else None

    engines.write(tmp_path, [Start(tmp_path).engine])
    assert (goes_on(), said) == ("r1", [])
    engines.write(tmp_path, [Wanted(release="base", port=8001)])  # as for one that is repaired now
    assert goes_on() is None and "r1" in said[0]
    assert goes_on(cpu=False) == "r1"  # on the base's engine


def test_a_base_with_other_weights_under_the_same_name_does_not_fit(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    one = manifest(base={"name": BASE, "files": release.weights(tmp_path)})
    here: dict[str, Any] = {"model": BASE, "kb": KB, "weights_in": str(tmp_path)}
    assert misfits(one, **here) == []
    (tmp_path / "model.safetensors").write_bytes(b"others")
    (why,) = misfits(one, **here)
    assert "other weights" in why
    for nothing_to_hash in ("nobody/has-this", ""):
        assert misfits(one, **here | {"weights_in": nothing_to_hash}) == []
