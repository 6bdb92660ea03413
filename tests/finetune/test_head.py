"""Logits only at trained positions change nothing but the time that they take."""

from pathlib import Path

import pytest
import torch
from peft import PromptEncoderConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from finetune import head
from finetune.batches import Collate, examples
from finetune.render import Renderer
from tests.finetune import small_runs, tiny


@pytest.fixture
def model(tiny_model: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(tiny_model)


def batch() -> dict[str, Tensor]:
    renderer = Renderer(tiny.tokenizer())
    return Collate(0)(examples([renderer.row(one) for one in small_runs.rows(3)]))


def quick(model: torch.nn.Module, found: head.Head, inputs: dict[str, Tensor]) -> Tensor:
    wanted, following = head.targets(inputs["labels"])
    rest = {k: v for k, v in inputs.items() if k != "labels"}
    with found.only(wanted):
        logits = model(**rest).logits
    assert logits.shape[1] == following.shape[0] < inputs["labels"].numel() / 2
    return head.loss(logits, following) / following.shape[0]


def test_the_loss_and_its_gradients_are_those_of_the_model(model: PreTrainedModel) -> None:
    inputs = batch()
    plain = model(**inputs).loss
    plain.backward()
    wanted = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    found = head.of(model)
    assert found is not None
    loss = quick(model, found, inputs)
    loss.backward()
    torch.testing.assert_close(loss, plain)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name])


def test_virtual_tokens_in_front_change_no_position(model: PreTrainedModel) -> None:
    prompted = get_peft_model(
        model,
        PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=5, encoder_hidden_size=8),
    )
    inputs = batch()
    plain = prompted(**inputs).loss
    found = head.of(prompted)
    assert found is not None
    torch.testing.assert_close(quick(prompted, found, inputs), plain)


def test_outside_of_a_training_step_the_head_sees_everything(model: PreTrainedModel) -> None:
    inputs = batch()
    assert head.of(model) is not None
    assert model(**inputs).logits.shape[:2] == inputs["input_ids"].shape


def test_a_batch_in_which_nothing_is_trained_has_no_loss(model: PreTrainedModel) -> None:
    labels = torch.full((2, 5), -100)
    wanted, following = head.targets(labels)
    found = head.of(model)
    assert found is not None
    with found.only(wanted):
        logits = model(input_ids=torch.ones(2, 5, dtype=torch.long)).logits
    assert head.loss(logits, following) == 0.0


def test_a_model_without_a_head_is_told_apart() -> None:
    assert head.of(torch.nn.Linear(2, 2)) is None
