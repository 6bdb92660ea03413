"""A damaged base model is one line that names the file, and exit code 3, before anything is run."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from finetune import cli, vocabulary, whole
from finetune.local import Shelf
from finetune.models import load
from finetune.perplexity import Perplexity
from finetune.settings import TrainSettings
from kb.errors import BadConfiguration, BadData, ModelBroken
from tests.finetune.small_runs import rows, run

WEIGHTS, CONFIG = "model.safetensors", "config.json"
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
INDEX = f"{WEIGHTS}.index.json"


def cut(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:-1])


def garbled(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(b"x" * 400 + content[400:])


def sharded(folder: Path) -> None:
    """In two files and their index."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    parts = {name: f"model-{n % 2}.safetensors" for n, name in enumerate(tensors)}
    for part in set(parts.values()):
        some = {name: one for name, one in tensors.items() if parts[name] == part}
        save_file(some, folder / part, metadata={"format": "pt"})
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": parts}))


def incomplete(folder: Path) -> None:
    sharded(folder)
    (folder / "model-1.safetensors").unlink()


def half_a_shard(folder: Path) -> None:
    sharded(folder)
    (folder / "model-0.safetensors").write_bytes(b"")


def unindexed(folder: Path) -> None:
    sharded(folder)
    (folder / INDEX).write_text("{}")


def unreadable(folder: Path) -> None:
    (folder / CONFIG).write_text('{"model_type": "lla')


def a_list(folder: Path) -> None:
    (folder / CONFIG).write_text("[]")


def changed(file: Path, **keys: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))


def wider(folder: Path) -> None:
    changed(folder / CONFIG, hidden_size=64)


def of_another_size(folder: Path) -> None:
    sharded(folder)
    changed(folder / CONFIG, vocab_size=512)


def of_no_kind(folder: Path) -> None:
    changed(folder / CONFIG, model_type="frobnicate")


def impossible(folder: Path) -> None:
    changed(folder / CONFIG, hidden_size="wide")


def half_a_tokenizer(folder: Path) -> None:
    (folder / TOKENIZER).write_bytes((folder / TOKENIZER).read_bytes()[:-9])


def list_of_tokens(folder: Path) -> None:
    (folder / TOKENIZER).write_text("[]")


def no_tokenizer(folder: Path) -> None:
    changed(folder / TOKENIZER, model=None)


def no_vocabulary(folder: Path) -> None:
    """transformers makes a tokenizer all the same, that knows special tokens alone."""
    (folder / TOKENIZER).unlink()
    changed(folder / TOKENIZER_CONFIG, tokenizer_class="LlamaTokenizer")


def garbled_sentencepiece(folder: Path) -> None:
    no_vocabulary(folder)
    (folder / "tokenizer.model").write_bytes(b"x" * 400)


@pytest.fixture
def base(tmp_path: Path, tiny_model: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(tiny_model, tmp_path / "base"))


@pytest.mark.parametrize(
    ("damage", "named", "said"),
    [
        (cut, WEIGHTS, "damaged or cut off"),
        (garbled, WEIGHTS, "damaged or cut off"),
        (incomplete, "model-1.safetensors", f"is not there, and {INDEX} names it"),
        (half_a_shard, "model-0.safetensors", "damaged or cut off"),
        (unindexed, INDEX, "has no weight_map"),
        (unreadable, CONFIG, "cannot be read"),
        (a_list, CONFIG, "is no JSON object"),
        (of_no_kind, CONFIG, "no model can be made of it: The checkpoint you are trying to load"),
        (impossible, CONFIG, "no model can be made of it"),
        (wider, WEIGHTS, "model.embed_tokens.weight is 287 x 32, by config.json it would be"),
        (of_another_size, "model-0.safetensors", "model.embed_tokens.weight is 287 x 32"),
        (half_a_tokenizer, TOKENIZER, "cannot be read: Expecting"),
        (list_of_tokens, TOKENIZER, "is no JSON object"),
        (no_tokenizer, TOKENIZER, "is no tokenizer"),
        (no_vocabulary, TOKENIZER, "is not there, and other files make no tokenizer"),
        (garbled_sentencepiece, TOKENIZER, "is not there, and other files make no tokenizer"),
    ],
)
@pytest.mark.parametrize("command", ["doctor", "plan", "train"])
def test_a_damaged_base_is_3_and_names_the_file(
    base: Path,
    tmp_path: Path,
    command: str,
    damage: Callable[[Path], None],
    named: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(base)
    settings = run(tmp_path / "run", base)
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(settings.model_dump(mode="json", exclude_unset=True)))
    monkeypatch.setenv("VADEMECUM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("sys.argv", ["finetune", command, str(config)])
    assert cli.main() == 3
    out, err = capsys.readouterr()
    assert not out and err.splitlines()[-1].startswith(f"{base / named}: {said}")
    assert "Traceback" not in err and not (settings.output_dir / "begun.json").exists()


@pytest.mark.parametrize("damage", [wider, half_a_tokenizer])
def test_rows_are_not_measured_with_a_damaged_base(
    base: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    damage(base)
    with pytest.raises(BadData, match=re.escape(f"{base}/")):
        Perplexity(str(base), 3.0, tmp_path).measure(rows(1))


def test_whole_weights_pass_in_one_file_or_in_several(base: Path) -> None:
    whole.check(str(base))
    sharded(base)
    whole.check(str(base))
    whole.check("org/model")  # nobody is asked


def test_what_transformers_loads_is_not_refused(base: Path) -> None:
    """Names without the prefix of the whole model, a tensor more, a tied one less."""
    tensors = load_file(base / WEIGHTS)
    bare = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    bare["layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(3)
    save_file(bare, base / WEIGHTS, metadata={"format": "pt"})
    whole.check(str(base))
    loaded = AutoModelForCausalLM.from_pretrained(base).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
    bare["embed_tokens.weight"] = bare["embed_tokens.weight"][:-1].clone()
    save_file(bare, base / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(BadData, match="is 286 x 32, by config"):
        whole.check(str(base))
    changed(base / CONFIG, quantization_config={"quant_method": "bitsandbytes"})
    whole.check(str(base))  # 4-bit weights are stored in shapes of their own


def test_a_tensor_that_is_turned_is_left_to_whoever_loads_it(base: Path) -> None:
    """Some architectures store matrices the other way round."""
    tensors = load_file(base / WEIGHTS)
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name] = tensors[name].T.contiguous()
    save_file(tensors, base / WEIGHTS, metadata={"format": "pt"})
    whole.check(str(base))


@pytest.mark.parametrize("files", [("tokenizer.json",), ("vocab.json", "merges.txt")])
def test_a_vocabulary_in_older_files_is_one(base: Path, files: tuple[str, ...]) -> None:
    before = vocabulary.load(str(base)).encode("the question")
    learned = json.loads((base / TOKENIZER).read_text())["model"]
    (base / "vocab.json").write_text(json.dumps(learned["vocab"]))
    (base / "merges.txt").write_text("\n".join(" ".join(pair) for pair in learned["merges"]))
    changed(base / TOKENIZER_CONFIG, tokenizer_class="GPT2Tokenizer")
    for name in {"tokenizer.json", "vocab.json", "merges.txt"} - set(files):
        (base / name).unlink()
    assert vocabulary.load(str(base)).encode("the question") == before


def test_what_is_found_out_only_when_it_is_loaded_is_said_too(base: Path, tmp_path: Path) -> None:
    """Files of a hub id are seen by nobody before; an adapter's are read last."""
    plain = TrainSettings.model_validate({"model_name_or_path": "x", "output_dir": tmp_path})
    load(str(base), plain, bf16=False).save_pretrained(tmp_path / "adapter")
    (tmp_path / "adapter/adapter_model.safetensors").write_bytes(b"x" * 99)
    going_on = plain.model_copy(update={"adapter_name_or_path": tmp_path / "adapter"})
    with pytest.raises(BadConfiguration, match=re.escape(str(tmp_path / "adapter"))):
        load(str(base), going_on, bf16=False)
    as_it_was = (base / CONFIG).read_bytes()
    wider(base)
    with pytest.raises(ModelBroken, match="its weights have other shapes"):
        load(str(base), plain, bf16=False)
    (base / CONFIG).write_bytes(as_it_was)
    cut(base)
    with pytest.raises(ModelBroken, match=re.escape(str(base))):
        load(str(base), plain, bf16=False)


def test_a_model_that_would_be_random_in_part_is_refused(base: Path, tmp_path: Path) -> None:
    """Its config.json names more layers than were saved. The head of a reward model is meant to be
    new, its layers are not."""
    plain = TrainSettings.model_validate({"model_name_or_path": "x", "output_dir": tmp_path})
    rewarded = plain.model_copy(update={"stage": "rm"})
    load(str(base), rewarded, bf16=False)
    changed(base / CONFIG, num_hidden_layers=3)
    for settings in (plain, rewarded):
        with pytest.raises(ModelBroken, match=r"lack 9 tensors .*: model\.layers\.2\."):
            load(str(base), settings, bf16=False)
    with pytest.raises(ModelBroken, match="lack 9 tensors"):
        Shelf(torch.float32).model(str(base))
