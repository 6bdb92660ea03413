"""One YAML file; what is wrong in it is named, with the nearest right key."""

from pathlib import Path

import pytest

from finetune.settings import load
from kb.errors import BadConfiguration

MINIMAL = "model_name_or_path: bundled:smollm2-135m-instruct\noutput_dir: runs/one\n"


def config(folder: Path, text: str) -> Path:
    file = folder / "run.yaml"
    file.write_text(MINIMAL + text, encoding="utf-8")
    return file


def test_alpha_is_twice_the_rank_unless_said(tmp_path: Path) -> None:
    assert load(config(tmp_path, "lora_rank: 8\n")).alpha == 16
    assert load(config(tmp_path, "lora_rank: 8\nlora_alpha: 8\n")).alpha == 8


def test_paths_are_taken_from_the_folder_of_the_file(tmp_path: Path) -> None:
    text = "reward_model: ../judge\ndata: {sources: [{path: a.jsonl}, {path: /b.jsonl}]}\n"
    settings = load(config(tmp_path, text))
    assert settings.reward_model == tmp_path.parent / "judge"
    assert settings.output_dir == tmp_path / "runs/one"
    assert [s.path for s in settings.data.sources] == [tmp_path / "a.jsonl", Path("/b.jsonl")]


def test_set_overrides_the_file_in_sections_too(tmp_path: Path) -> None:
    sets = ["learning_rate=1e-4", "data.val_size=0.1", "allow=[epochs, alpha]"]
    settings = load(config(tmp_path, ""), sets)
    assert settings.learning_rate == pytest.approx(1e-4)
    assert settings.data.val_size == 0.1
    assert settings.allow == ("epochs", "alpha")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data: {mix: {domain: 0}}\n", "data.mix: no role has a share"),
        ("lora_rnk: 8\n", r"run.yaml: lora_rnk: unknown key; did you mean lora_rank"),
        ("data: {near_dup: 1}\n", r"data.near_dup: unknown key; did you mean near_duplicate"),
        (
            "data: {sources: [{path: a, rol: x}]}\n",
            r"sources.0.rol: unknown key; did you mean role",
        ),
        ("lora_rank: 0\n", r"lora_rank: Input should be greater"),
        ("stage: sfft\n", r"stage: Input should be 'pt'"),
        ("finetuning_type: ptuning\npacking: true\n", r"packing: P-tuning ignores"),
        ("stage: dpo\npacking: true\n", r"packing: stage dpo packs no rows"),
        ("max_steps: 0\n", r"max_steps: 0 trains nothing"),
        ("max_steps: -5\n", r"max_steps: Input should be greater than or equal to -1"),
        (
            "resume_from_checkpoint: [a]\n",
            r"resume_from_checkpoint: \['a'\] is neither true, false nor the folder",
        ),
        ("a: [\n", r"not valid YAML"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadConfiguration, match=said):
        load(config(tmp_path, text))


def test_a_checkpoint_that_is_null_is_the_default(tmp_path: Path) -> None:
    """As in LLaMA-Factory's examples."""
    assert load(config(tmp_path, "resume_from_checkpoint: null\n")).resume_from_checkpoint is True


def test_what_is_no_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match=r"none\.yaml: No such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(BadConfiguration, match=r"must be key=value"):
        load(config(tmp_path, ""), ["seed"])
    empty = tmp_path / "empty.yaml"
    empty.write_text("output_dir: x\n", encoding="utf-8")
    with pytest.raises(BadConfiguration, match="model_name_or_path is missing"):
        load(empty)
