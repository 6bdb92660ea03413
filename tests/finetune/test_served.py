"""The release that a candidate is held against is the one that is served, whole, or none is."""

import json
import sys
from pathlib import Path

import pytest

from finetune import cli, served
from finetune.settings import TrainSettings
from kb import release, shipped
from kb.errors import BadConfiguration, BadData
from tests.finetune.judging import settings
from tests.finetune.test_cli_judge import QUICK
from tests.finetune.test_engines import adapter
from tests.kb.releases import manifest, store

FILES = {"model.safetensors": "a" * 64}


def configured(folder: Path, against: str = "current", model: str = "") -> TrainSettings:
    made = settings(folder, against=against)
    return made.model_copy(update={"model_name_or_path": model}) if model else made


def find(run: TrainSettings, home: Path, said: list[str] | None = None) -> served.Served | None:
    return served.find(run, FILES, home, (said if said is not None else []).append)


def test_what_is_served_is_found(tmp_path: Path) -> None:
    for name in ("r1", "r2"):
        store(tmp_path, name)
    release.succeed(tmp_path, ["r2", "r1"])
    run = configured(tmp_path)
    assert find(run, tmp_path) == served.Served("r2", tmp_path / "releases/r2/adapter")
    release.succeed(tmp_path, ["base", "r2"])
    assert find(run, tmp_path) is None


def test_before_anybody_chose_it_is_what_a_server_would_begin_with(tmp_path: Path) -> None:
    run = configured(tmp_path)
    *_, last = shipped.of(run.model_name_or_path)
    found = served.find(run, last.base.files, tmp_path, print)
    assert found == served.Served(last.id, shipped.FOLDER / last.id / "adapter")
    assert find(configured(tmp_path, model="of/another"), tmp_path) is None


def test_another_may_be_named_or_none(tmp_path: Path) -> None:
    for name in ("r1", "r2"):
        store(tmp_path, name)
    release.succeed(tmp_path, ["r2", "r1"])
    named = find(configured(tmp_path, "r1"), tmp_path)
    assert named is not None and named.id == "r1"
    assert find(configured(tmp_path, "base"), tmp_path) is None


@pytest.mark.parametrize(
    ("against", "said"), [("r7", "there is no release 'r7' in .*releases"), ("../r1", "is no id")]
)
def test_one_that_is_not_there_is_refused(tmp_path: Path, against: str, said: str) -> None:
    with pytest.raises(BadConfiguration, match=rf"eval\.against: .*{said}"):
        find(configured(tmp_path, against), tmp_path)


def test_an_adapter_of_another_base_is_not_compared_and_that_is_said(tmp_path: Path) -> None:
    store(tmp_path, "r1", base={"name": "of/another"})
    release.succeed(tmp_path, ["r1"])
    said: list[str] = []
    assert find(configured(tmp_path), tmp_path, said) is None
    assert said == ["r1 is an adapter of another base, of/another: not compared with it"]
    with pytest.raises(BadConfiguration, match=r"eval\.against: r1 is an adapter of another"):
        find(configured(tmp_path, "r1"), tmp_path)


def test_weights_tell_a_base_better_than_its_name(tmp_path: Path) -> None:
    store(tmp_path, "r1", base={"name": "moved", "files": FILES})
    store(
        tmp_path,
        "r2",
        base={"name": configured(tmp_path).model_name_or_path, "files": {"a": "b" * 64}},
    )
    assert find(configured(tmp_path, "r1"), tmp_path) is not None
    with pytest.raises(BadConfiguration, match="another base"):
        find(configured(tmp_path, "r2"), tmp_path)


def test_whole_weights_need_no_base(tmp_path: Path) -> None:
    store(tmp_path, "r1", kind="merged", adapter=None, base={"name": "of/another"})
    release.succeed(tmp_path, ["r1"])
    found = find(configured(tmp_path), tmp_path)
    assert found == served.Served("r1", tmp_path / "releases/r1/model")


def test_a_damaged_one_is_named(tmp_path: Path) -> None:
    store(tmp_path, "r1")
    release.succeed(tmp_path, ["r1"])
    (tmp_path / "releases/r1/adapter/adapter_model.safetensors").write_bytes(b"other")
    with pytest.raises(BadData, match=r"r1: adapter/adapter_model\.safetensors is not what"):
        find(configured(tmp_path), tmp_path)


def test_eval_asks_the_release_that_is_served_too(
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With its weights: a release of the candidate's own is as good in everything, one of others
    answers otherwise."""
    home = tmp_path / "home"
    monkeypatch.setenv("VADEMECUM_HOME", str(home))
    settings(tmp_path, items=6)
    file = tmp_path / "run.yaml"
    document = json.loads(file.read_text(encoding="utf-8"))
    document["model_name_or_path"] = str(tiny_model)
    document["eval"]["max_tokens"] = 4
    file.write_text(json.dumps(document), encoding="utf-8")
    adapter(tiny_model, tmp_path / "run/adapter", 1)
    base = {"name": str(tiny_model), "files": release.weights(tiny_model)}
    for name, seed in (("run", 1), ("other", 2)):
        part = adapter(tiny_model, tmp_path / name / "made", seed)
        (part / "README.md").unlink(missing_ok=True)
        release.write(home, manifest(name, base=base), {"adapter": part})

    def told(name: str) -> dict[str, tuple[float, float]]:
        release.succeed(home, [name])
        monkeypatch.setattr(sys, "argv", ["finetune", "eval", str(file), *QUICK])
        assert cli.main() == 2
        made = json.loads(capsys.readouterr().out)
        assert made["against"] == name
        return {m["ability"]: (m["base"], m["candidate"]) for m in made["beside"]}

    own, other = told("run"), told("other")
    assert own["text"][0] == own["text"][1] == other["text"][1] != other["text"][0]
