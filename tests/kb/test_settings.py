"""One TOML file and the environment become frozen settings; whatever is misspelt is refused."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from app.settings import AppSettings, EngineSettings
from ingest.settings import IngestSettings
from kb.errors import BadConfiguration
from kb.settings import SECTIONS, KbSettings, Section, load

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "vademecum.example.toml"
ROOMS: dict[str, type[Section]] = {
    "kb": KbSettings,
    "ingest": IngestSettings,
    "engine": EngineSettings,
    "app": AppSettings,
}


def write(folder: Path, text: str, name: str = "vademecum.toml") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_without_file_and_environment_the_defaults_hold(tmp_path: Path) -> None:
    config = load({}, tmp_path)
    assert config.section("kb", KbSettings) == KbSettings()
    assert config.home == tmp_path / "data"


def test_the_file_is_read(tmp_path: Path) -> None:
    write(tmp_path, "[kb]\nchunk_tokens = 200\n")
    assert load({}, tmp_path).section("kb", KbSettings).chunk_tokens == 200


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    write(tmp_path, "[kb]\nchunk_tokens = 200\ncandidates = 32\n")
    environ = {"VADEMECUM_KB__CHUNK_TOKENS": "300", "OTHER_KB__CHUNK_TOKENS": "99"}
    settings = load(environ, tmp_path).section("kb", KbSettings)
    assert (settings.chunk_tokens, settings.candidates) == (300, 32)


def test_an_unknown_section_is_refused_with_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, "[ingst]\nocr = true\n")
    with pytest.raises(BadConfiguration, match=r"\[ingst\].*did you mean ingest"):
        load({}, tmp_path)


def test_an_unknown_key_is_refused_with_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, "[kb]\nembeder = 'x'\n")
    config = load({}, tmp_path)
    with pytest.raises(BadConfiguration, match=r"\[kb\] embeder: .*did you mean embedder"):
        config.section("kb", KbSettings)


def test_an_unknown_section_of_the_environment_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match=r"VADEMECUM_ENGIN__URL.*did you mean engine"):
        load({"VADEMECUM_ENGIN__URL": "x"}, tmp_path)


def test_an_unknown_key_of_the_environment_is_refused_with_the_nearest(tmp_path: Path) -> None:
    config = load({"VADEMECUM_KB__CANDIDATE": "20"}, tmp_path)
    with pytest.raises(BadConfiguration, match="did you mean candidates"):
        config.section("kb", KbSettings)


def test_a_name_like_no_other_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match="known are kb, ingest, engine, app"):
        load({"VADEMECUM_ZZZZ__URL": "x"}, tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("chunk_tokens", "31"),
        ("chunk_tokens", "481"),
        ("chunk_tokens", "many"),
        ("candidates", "0"),
        ("dense_weight", "-1"),
        ("embedder", ""),
    ],
)
def test_a_value_out_of_bounds_is_refused_with_its_key(
    tmp_path: Path, key: str, value: str
) -> None:
    config = load({f"VADEMECUM_KB__{key.upper()}": value}, tmp_path)
    with pytest.raises(BadConfiguration, match=rf"\[kb\] {key} = '{value}'"):
        config.section("kb", KbSettings)


def test_a_key_outside_any_section_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "chunk_tokens = 200\n")
    with pytest.raises(BadConfiguration, match="chunk_tokens stands outside any section"):
        load({}, tmp_path)


@pytest.mark.parametrize("raw", [b"[kb\n", b"[kb]\nembedder = '\xff'\n"])
def test_a_file_that_is_not_toml_is_refused_with_its_name(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "vademecum.toml").write_bytes(raw)
    with pytest.raises(BadConfiguration, match=r"vademecum\.toml is not valid TOML"):
        load({}, tmp_path)


def test_a_named_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "[kb]\nchunk_tokens = 200\n")
    with pytest.raises(BadConfiguration, match=r"VADEMECUM_CONFIG names other\.toml"):
        load({"VADEMECUM_CONFIG": "other.toml"}, tmp_path)


def test_a_named_file_takes_the_place_of_the_usual_one(tmp_path: Path) -> None:
    write(tmp_path, "[kb]\nchunk_tokens = 200\n")
    named = write(tmp_path, "[kb]\nchunk_tokens = 300\n", "other.toml")
    for spelling in ("other.toml", str(named)):
        config = load({"VADEMECUM_CONFIG": spelling}, tmp_path)
        assert config.section("kb", KbSettings).chunk_tokens == 300


@pytest.mark.parametrize(
    ("environ", "text", "expected"),
    [
        ({}, "", "{folder}/data"),
        ({}, 'home = "state"', "{folder}/state"),
        ({}, 'home = "/srv/v"', "/srv/v"),
        ({}, 'home = "~/v"', "{user}/v"),
        ({"VADEMECUM_HOME": "~/w"}, 'home = "/srv/v"', "{user}/w"),
        ({"VADEMECUM_HOME": "here"}, 'home = "/srv/v"', "{folder}/here"),
        ({"VADEMECUM_HOME": ""}, 'home = "/srv/v"', "/srv/v"),
    ],
)
def test_home_is_absolute_and_the_environment_decides_first(
    tmp_path: Path, environ: dict[str, str], text: str, expected: str
) -> None:
    write(tmp_path, text)
    wanted = expected.format(folder=tmp_path.resolve(), user=Path.home())
    assert load(environ, tmp_path).home == Path(wanted).resolve()


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        KbSettings().candidates = 12


def test_the_example_file_holds_the_defaults_of_every_room(tmp_path: Path) -> None:
    write(tmp_path, EXAMPLE.read_text(encoding="utf-8"))
    config = load({}, tmp_path)
    assert set(ROOMS) == set(SECTIONS)
    for name, kind in ROOMS.items():
        assert config.section(name, kind) == kind(), name
    assert config.home == tmp_path / "data"
