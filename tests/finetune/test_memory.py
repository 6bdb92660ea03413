"""What a run needs is counted as autograd keeps it, and grows with what it depends on."""

import gc
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from bench import memory as bench
from finetune import device, head, lengths, models, outlook, shape
from finetune.batches import LengthGrouped
from finetune.lengths import Sized
from finetune.memory import GB, MARGIN, Batch, Machine, activations, estimate
from finetune.render import Renderer
from finetune.rows import Row
from finetune.settings import TrainSettings
from finetune.shape import Shape
from tests.finetune.small_runs import row

CPU = Machine("cpu", 16 * GB, bf16=False)
GPU = Machine("cuda", 80 * GB, bf16=True)
ROWS, LENGTH = 2, 100


def run(**keys: Any) -> TrainSettings:
    written = {"model_name_or_path": "unused", "output_dir": Path("run")}
    return TrainSettings.model_validate({**written, **keys})


def llama(billions: float) -> Shape:
    """Llama's proportions with so many parameters, but for the embeddings."""
    hidden = round((billions * 1e9 / 32 / 12.25) ** 0.5 / 128) * 128
    inner = round(2.75 * hidden)
    square = [(hidden, hidden)] * 4
    layer = [*square, (hidden, inner), (hidden, inner), (inner, hidden)]
    names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    linear = tuple(layer * 32)
    return Shape(
        parameters=sum(a * b for a, b in linear) + 32_000 * hidden,
        embedding=32_000 * hidden,
        linear=linear,
        names=names * 32,
        vocabulary=32_000,
        hidden=hidden,
        intermediate=inner,
        layers=32,
        heads=hidden // 128,
        keys=hidden // 128,
        most_tokens=4096,
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large enough that what is counted is nearly everything, and no two widths are the same."""
    folder = tmp_path_factory.mktemp("model")
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def kept(model: Path, settings: TrainSettings, *, bf16: bool, padded: bool) -> int:
    """Bytes that autograd keeps of a forward pass, without weights and their copies."""
    made = models.load(str(model), settings, bf16=bf16)
    made.train()
    if settings.gradient_checkpointing:
        made.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
        made.enable_input_require_grads()  # type: ignore[operator]
    shapes = {tuple(p.shape) for p in made.parameters()}
    shapes |= {tuple(reversed(one)) for one in shapes}
    held: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tuple(tensor.shape) not in shapes:
            held.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    ids = torch.randint(0, 300, (ROWS, LENGTH))
    mask = torch.ones_like(ids)
    mask[0, -9 if padded else LENGTH :] = 0
    wanted = torch.zeros_like(ids, dtype=torch.bool)
    wanted[:, -1] = True
    layer = head.of(made)
    assert layer is not None
    casting = torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), casting, layer.only(wanted):
        made(input_ids=ids, attention_mask=mask, use_cache=False)
    return sum(one.untyped_storage().nbytes() for one in held.values())


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_activations_are_what_autograd_keeps(
    model: Path, method: str, bf16: bool, padded: bool
) -> None:
    settings = run(finetuning_type=method, lora_rank=4)
    counted = activations(shape.of(str(model)), settings, Batch(ROWS, LENGTH, 2, padded), bf16)
    assert counted == pytest.approx(kept(model, settings, bf16=bf16, padded=padded), rel=0.03)


def test_checkpointing_keeps_what_is_between_layers_and_one_of_them(model: Path) -> None:
    known, batch = shape.of(str(model)), Batch(ROWS, LENGTH, 2, padded=False)
    settings = run(gradient_checkpointing=True, lora_rank=4)
    counted = activations(known, settings, batch, False)
    between = kept(model, settings, bf16=False, padded=False)
    whole = activations(known, run(lora_rank=4), batch, False)
    assert counted - between == pytest.approx(whole / known.layers, rel=0.2)


@pytest.mark.parametrize("method", ["full", "lora", "qlora", "ptuning"])
@pytest.mark.parametrize("on", [CPU, GPU])
def test_more_rows_longer_rows_and_more_trained_tokens_need_more(method: str, on: Machine) -> None:
    known, settings = llama(1), run(finetuning_type=method)
    sizes = [
        estimate(known, settings, batch, on).total
        for batch in (
            Batch(4, 256, 100),
            Batch(8, 256, 100),
            Batch(8, 512, 100),
            Batch(8, 512, 4000),
        )
    ]
    assert sizes == sorted(set(sizes))


def test_qlora_needs_less_than_lora_and_lora_less_than_full() -> None:
    batch = Batch(4, 256, 100)
    sizes = [
        estimate(llama(7), run(finetuning_type=method), batch, GPU).total
        for method in ("qlora", "lora", "full")
    ]
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("on", [CPU, GPU])
def test_a_larger_adapter_needs_as_much_more_over_four_bits(on: Machine) -> None:
    batch = Batch(1, 8, 8)
    low, high = (
        estimate(llama(7), run(finetuning_type="qlora", lora_rank=rank), batch, on).parts["weights"]
        for rank in (16, 256)
    )
    assert high - low == 4 * (llama(7).adapter(256) - llama(7).adapter(16))


def test_full_tuning_of_seven_billion_is_sixteen_bytes_a_parameter_and_activations() -> None:
    known = llama(7)
    parts = estimate(known, run(finetuning_type="full"), Batch(1, 128, 10), CPU).parts
    states = parts["weights"] + parts["optimizer"] + parts["gradients"]
    assert states == 16 * known.parameters


def test_four_bits_are_half_a_byte() -> None:
    known = llama(7)
    parts = estimate(known, run(finetuning_type="qlora"), Batch(1, 128, 10), GPU).parts
    linear = known.parameters - known.embedding
    base = parts["weights"] - 4 * known.adapter(16)
    assert base == pytest.approx(0.516 * linear + 2 * known.embedding, rel=0.01)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="maps are told by Linux")
def test_four_bits_let_go_of_the_files_that_they_were_made_from(
    model: Path, tmp_path: Path
) -> None:
    """One weight that is still a view of a mapped file keeps all of it resident."""
    own = str(shutil.copytree(model, tmp_path / "own"))

    def is_mapped() -> bool:
        gc.collect()
        return own in Path("/proc/self/maps").read_text(encoding="utf-8")

    half = models.load(own, run(finetuning_type="lora", lora_rank=4), bf16=False)
    assert is_mapped()
    del half
    made = models.load(own, run(finetuning_type="qlora", lora_rank=4), bf16=False)
    assert not is_mapped() and made is not None


@pytest.mark.real
def test_the_estimate_is_near_the_peak_of_a_real_run(models_home: Path, tmp_path: Path) -> None:
    """Of the method of most parts; all settings of `bench.memory` are a quarter of an hour. Of the
    one whose estimate lies amid what runs measured: they differ by up to 8% among themselves."""
    found = bench.measured(bench.Setting("llama-360m", "qlora", 2, 256), models_home, tmp_path)
    assert found["ratio"] == pytest.approx(1, abs=bench.NEAR), found


def test_preferences_are_pairs_and_full_tuning_by_them_keeps_the_first_model() -> None:
    known, batch = llama(1), Batch(4, 256, 100)
    sft, dpo = (estimate(known, run(stage=stage), batch, CPU).parts for stage in ("sft", "dpo"))
    assert dpo["activations"] == pytest.approx(2 * sft["activations"], rel=0.01)
    full = [
        estimate(known, run(stage=stage, finetuning_type="full"), batch, CPU).parts["weights"]
        for stage in ("sft", "dpo", "rm")
    ]
    assert full == [4 * known.parameters, 8 * known.parameters, 4 * known.parameters]


def test_an_optimizer_of_8_bits_and_checkpointing_need_less() -> None:
    batch = Batch(8, 512, 400)
    known, plain = llama(1), run(finetuning_type="full")
    most = estimate(known, plain, batch, GPU).total
    for keys in ({"optim": "adamw_bnb_8bit"}, {"gradient_checkpointing": True}):
        assert estimate(known, plain.model_copy(update=keys), batch, GPU).total < most


def sizes(*tokens: int, trained: int = 1) -> list[Sized]:
    return [Sized(row(n), length, trained) for n, length in enumerate(tokens)]


def test_the_heaviest_batch_is_the_longest_or_the_one_with_most_logits() -> None:
    settings, known = run(per_device_train_batch_size=2, gradient_accumulation_steps=1), llama(1)

    def weigh(batch: Batch) -> int:
        return estimate(known, settings, batch, CPU).total

    rows = sizes(10, 500, 200, 200, 10, 500)
    assert lengths.heaviest(rows, settings, weigh)[0].length == 500
    plain = [*sizes(500, 500), *sizes(480, 470, trained=460), *sizes(10, 10)]
    batch, held = lengths.heaviest(plain, settings, weigh)
    assert batch == Batch(2, 480, 920) and {r.origin for r in held} == {
        one.row.origin for one in plain[2:4]
    }


def test_the_heaviest_batch_is_one_that_the_run_takes() -> None:
    rows = sizes(*range(20, 820))
    settings = run(per_device_train_batch_size=4, num_train_epochs=2)
    order = LengthGrouped([one.tokens for one in rows], 16, settings.seed)
    taken = set()
    for order.epoch in range(2):
        indices = list(order)
        taken |= {frozenset(indices[n : n + 4]) for n in range(0, len(indices), 4)}
    batch, held = lengths.heaviest(rows, settings, lambda batch: batch.tokens)
    assert frozenset(int(r.origin.source.split(":")[1]) for r in held) in taken
    assert batch.length == 819
    few = settings.model_copy(update={"max_steps": 1})
    order.epoch = 0
    begun = {rows[i].row.origin for i in list(order)[:16]}
    assert {r.origin for r in lengths.heaviest(rows, few, lambda batch: -batch.tokens)[1]} < begun
    pairs = settings.model_copy(update={"stage": "dpo"})
    assert lengths.heaviest(rows, pairs, lambda batch: 0)[1] == [one.row for one in rows[:-5:-1]]


def test_packed_rows_make_sequences_as_long_as_may_be() -> None:
    settings = run(packing=True, cutoff_len=64, per_device_train_batch_size=3)
    rows = sizes(40, 20, 20, trained=10)
    batch, held = lengths.heaviest(rows, settings, lambda batch: batch.tokens)
    assert batch == Batch(3, 64, round(3 * 64 * 30 / 80))
    taken = [int(r.origin.source.split(":")[1]) for r in held]
    assert taken == [
        0,
        1,
        2,
        0,
        1,
        2,
        0,
    ]  # 200 tokens fill 3 x 64, and without the last they do not


def test_common_rows_are_where_half_of_the_tokens_are_longer() -> None:
    rows = sizes(1, 40, 40, 40, 40, 1, 100, 100)
    assert lengths.typical(rows, 2) == [rows[7].row, rows[1].row]
    assert len(lengths.typical(rows, 8)) == len(lengths.typical(rows, 9)) == 8


def small(settings: TrainSettings, available: int) -> tuple[Shape, outlook.Outlook]:
    known = llama(1)
    rows = sizes(*[512] * 16, trained=100)
    return known, outlook.of(settings, known, rows, replace(CPU, available=available))


def test_what_does_not_fit_says_the_smallest_change_with_which_it_would() -> None:
    settings = run(per_device_train_batch_size=8, gradient_accumulation_steps=2)
    known, seen = small(settings, 0)
    smaller = settings.model_copy(
        update={"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8}
    )
    enough = estimate(known, smaller, Batch(2, 512, 200, padded=False), CPU).total
    known, seen = small(settings, round(enough * MARGIN) + 1)
    assert not seen.enough
    said = outlook.too_little(settings, known, seen)
    assert f"need about {outlook.gb(seen.run.total)}, {outlook.gb(seen.machine.available)}" in said
    assert "with per_device_train_batch_size: 2, gradient_accumulation_steps: 8 it would" in said


def test_less_still_takes_checkpointing_and_then_another_method() -> None:
    full = run(finetuning_type="full")
    said = outlook.too_little(full, *small(full, 14 * GB))
    assert "finetuning_type: lora" in said
    lora = run()
    said = outlook.too_little(lora, *small(lora, 7 * GB))
    assert "gradient_checkpointing: true" in said and "finetuning_type" not in said


def test_what_fits_in_no_way_asks_for_a_smaller_model() -> None:
    assert "a smaller model" in outlook.too_little(run(), *small(run(), GB))


def test_a_widened_model_is_counted_with_its_own_heads() -> None:
    known = llama(1)
    assert known.attention == known.keyed == known.hidden
    unnamed = replace(known, names=("c_attn",) * len(known.names), keys=known.heads // 4)
    assert (unnamed.attention, unnamed.keyed) == (known.hidden, known.hidden // 4)


def test_this_machine_has_memory_and_less_free_than_a_petabyte() -> None:
    here = device.machine(bf16=True)
    assert here.bf16 and here.name and 2**20 < here.available < 2**50
    assert 0 < device.peak_mb() < 2**30


def test_rows_are_pairs_where_they_are_compared(tiny_model: Path) -> None:
    renderer = Renderer(models.tokenizer(str(tiny_model)))
    pair: Row = row(0, rejected="a much longer answer than the one that was chosen")
    rendered = [renderer.row(pair)]
    (sft,) = lengths.sized([pair], rendered, renderer, run())
    (dpo,) = lengths.sized([pair], rendered, renderer, run(stage="dpo"))
    (grpo,) = lengths.sized([pair], rendered, renderer, run(stage="grpo"))
    assert dpo.tokens > sft.tokens and grpo.tokens == sft.tokens - sft.trained + 128
