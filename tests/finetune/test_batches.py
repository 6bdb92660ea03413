"""Rows in one sequence do not see each other; rows of like length go together; order is exact."""

from itertools import pairwise
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, TrainerControl, TrainerState, TrainingArguments

from finetune import head
from finetune.batches import Collate, LengthGrouped, examples, packed
from finetune.render import Rendered, Renderer
from tests.finetune import small_runs, tiny


def rendered(count: int = 7) -> list[Rendered]:
    renderer = Renderer(tiny.tokenizer())
    texts = [renderer.plain("a text of its own " * (n + 1)) for n in range(2)]
    return [renderer.row(one) for one in small_runs.rows(count)] + texts


def summed(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    labels = batch.pop("labels")
    wanted, following = head.targets(labels)
    logits = model(**batch, use_cache=False).logits
    return head.loss(logits[wanted], following)


def test_the_loss_of_packed_rows_is_the_sum_of_their_losses(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    rows = rendered()
    alone = torch.stack([summed(model, Collate(0)([one])) for one in examples(rows)])
    packs = packed(rows, 128)
    assert 1 < len(packs) < len(rows)
    for flat in (False, True):
        together = summed(model, Collate(0, flat)(packs))
        torch.testing.assert_close(together, alone.sum())


def test_packing_loses_and_cuts_nothing() -> None:
    rows = rendered()
    packs = packed(rows, 128)
    assert all(len(pack["input_ids"]) <= 128 for pack in packs)
    found = []
    for pack in packs:
        ends = torch.tensor(pack["seq_lengths"]).cumsum(0).tolist()
        for length, end in zip(pack["seq_lengths"], ends, strict=True):
            found.append(tuple(pack["input_ids"][end - length : end]))
    assert sorted(found) == sorted(row.input_ids for row in rows)


def test_a_batch_is_as_long_as_its_longest_row() -> None:
    rows = examples(rendered())
    batch = Collate(9)(rows)
    longest = max(len(one["input_ids"]) for one in rows)
    assert batch["input_ids"].shape == batch["labels"].shape == (len(rows), longest)
    assert batch["attention_mask"].sum() == sum(len(one["input_ids"]) for one in rows)
    assert (batch["input_ids"][batch["attention_mask"] == 0] == 9).all()


def at(order: LengthGrouped, epoch: float) -> list[int]:
    args = TrainingArguments(use_cpu=True, report_to="none")
    order.on_epoch_begin(args, TrainerState(epoch=epoch), TrainerControl())
    return list(order)


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    lengths = [n % 37 for n in range(200)]
    order = LengthGrouped(lengths, 8, seed=3)
    first, second = at(order, 0.0), at(order, 1.0)
    torch.rand(100)  # what a run draws in between
    assert first != second
    assert at(LengthGrouped(lengths, 8, seed=3), 1.4) == second
    assert sorted(first) == sorted(second) == list(range(200))


def test_rows_of_a_step_are_of_like_length_and_the_longest_comes_first() -> None:
    lengths = [(n * 7919) % 500 for n in range(1000)]
    order = at(LengthGrouped(lengths, 10, seed=3), 0.0)
    steps = [[lengths[i] for i in order[k : k + 10]] for k in range(0, 1000, 10)]
    assert max(steps[0]) == max(lengths)
    spread = sum(max(step) - min(step) for step in steps[1:]) / len(steps)
    assert spread < 50
    # Steps do not come sorted by length.
    rising = sum(max(a) < max(b) for a, b in pairwise(steps))
    assert 30 < rising < 70
