"""The release that a candidate is held against is the one that is served, whole, or none is."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from finetune import cli, served
from finetune.candidates import Candidate
from finetune.settings import TrainSettings
from kb import release, shipped
from kb.errors import BadConfiguration, BadData
from tests.finetune.judging import settings
from tests.finetune.test_cli_judge import QUICK
from tests.finetune.test_engines import adapter
from tests.kb.releases import manifest, store

FILES = {"model.safetensors": "a" * 64}
CANDIDATE = Candidate(Path("unused"), True, {"peft_type": "LORA"})
SOFT = Candidate(Path("unused"), True, {"peft_type": "P_TUNING"})


def configured(folder: Path, against: str = "current", model: str = "") -> TrainSettings:
    made = settings(folder, against=against)
    return made.model_copy(update={"model_name_or_path": model}) if model else made


def find(run: TrainSettings, home: Path, said: list[str] | None = None) -> served.Served | None:
    return served.find(run, CANDIDATE, FILES, home, (said if said is not None else []).append)


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
    found = served.find(run, CANDIDATE, last.base.files, tmp_path, print)
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


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"base": {"name": "of/another"}}, "r1 has another base, of/another"),
        (
            {"base": {"name": "of/another"}, "kind": "merged", "adapter": None},
            "r1 has another base, of/another",
        ),
        ({"prompt_version": 999}, "r1 was made for prompt version 999"),
    ],
)
def test_what_cannot_be_asked_the_same_is_not_compared_and_that_is_said(
    tmp_path: Path, other: dict[str, Any], told: str
) -> None:
    store(tmp_path, "r1", **other)
    release.succeed(tmp_path, ["r1"])
    said: list[str] = []
    assert find(configured(tmp_path), tmp_path, said) is None
    assert said == [f"{told}: not compared with it"]
    with pytest.raises(BadConfiguration, match=rf"eval\.against: {told}"):
        find(configured(tmp_path, "r1"), tmp_path)


def test_a_soft_prompt_is_not_held_beside_an_adapter(tmp_path: Path) -> None:
    store(tmp_path, "r1")
    release.succeed(tmp_path, ["r1"])
    said: list[str] = []
    assert served.find(configured(tmp_path), SOFT, FILES, tmp_path, said.append) is None
    assert said == ["r1 cannot be held in memory beside this kind of adapter: not compared with it"]


def test_weights_tell_a_base_better_than_its_name(tmp_path: Path) -> None:
    same, other = configured(tmp_path).model_name_or_path, {"model.safetensors": "b" * 64}
    store(tmp_path, "r1", base={"name": "moved", "files": FILES})
    store(tmp_path, "r2", base={"name": same, "files": other})
    store(tmp_path, "r3", base={"name": "moved", "files": FILES}, kind="merged", adapter=None)
    more = FILES | {"converted.gguf": "c" * 64}
    for files in (FILES, more):  # as the server compares them: what lies beside is no matter
        found = served.find(configured(tmp_path, "r1"), CANDIDATE, files, tmp_path, print)
        assert found == served.Served("r1", tmp_path / "releases/r1/adapter")
    whole = find(configured(tmp_path, "r3"), tmp_path)
    assert whole == served.Served("r3", tmp_path / "releases/r3/model")
    with pytest.raises(BadConfiguration, match="another base"):
        find(configured(tmp_path, "r2"), tmp_path)


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
    """With its weights, beside a run of another seed: a release of the candidate's own weights is
    as good in everything, one of others answers otherwise."""
    home = tmp_path / "home"
    monkeypatch.setenv("VADEMECUM_HOME", str(home))
    settings(tmp_path, items=6)
    file = tmp_path / "run.yaml"
    document = json.loads(file.read_text(encoding="utf-8"))
    document["model_name_or_path"] = str(tiny_model)
    document["eval"] |= {"max_tokens": 4, "seeds": [7]}
    file.write_text(json.dumps(document), encoding="utf-8")
    for name, seed in (("run", 1), ("run-seed7", 3)):
        adapter(tiny_model, tmp_path / name / "adapter", seed)
        begun = json.dumps({"learning_rate": 1e-4, "seed": seed})
        (tmp_path / name / "begun.json").write_text(begun, encoding="utf-8")
    base = {"name": str(tiny_model), "files": release.weights(tiny_model)}
    for name, seed in (("own", 1), ("other", 2)):
        made = adapter(tiny_model, tmp_path / name, seed)
        release.write(home, manifest(name, base=base), {"adapter": made})

    def told(name: str) -> tuple[float, float, list[float]]:
        release.succeed(home, [name])
        monkeypatch.setattr(sys, "argv", ["finetune", "eval", str(file), *QUICK])
        assert cli.main() == 2
        made = json.loads(capsys.readouterr().out)
        assert made["against"] == name
        (text,) = [m for m in made["beside"] if m["ability"] == "text"]
        (seeds,) = [s for s in made["seeds"] if s["label"].startswith("text")]
        return text["base"], text["candidate"], seeds["runs"]

    own, candidate, (first, second) = told("own")
    assert own == candidate == first != second
    other, *same = told("other")
    assert same == [candidate, [first, second]] and other not in (first, second)
