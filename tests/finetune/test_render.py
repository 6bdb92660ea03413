"""Rows become the tokens that the engine sees, with the assistant's words trained and no others."""

import pytest

from finetune.render import IGNORED, Renderer, render
from finetune.rows import Message, Origin, Row
from kb.errors import BadConfiguration, BadData
from tests.finetune.tiny import tokenizer


def row(*turns: str, text: str = "") -> Row:
    roles = ("system", "user", "assistant", "user", "assistant")
    said = tuple(Message(role=r, content=t) for r, t in zip(roles, turns, strict=False))
    return Row(messages=said, text=text, origin=Origin(source="rows.jsonl:1"))


def trained(one: Row) -> str:
    renderer = Renderer(tokenizer())
    rendered = renderer.row(one)
    return renderer.tokenizer.decode([t for t in rendered.labels if t != IGNORED])


def test_the_answer_and_its_end_are_trained_and_nothing_else() -> None:
    assert trained(row("Be brief.", "Why?", "Because.")) == "Because.<|im_end|>"


def test_every_answer_of_a_conversation_is_trained() -> None:
    assert trained(row("s", "a?", "b", "c?", "d")) == "b<|im_end|>d<|im_end|>"


def test_an_answer_that_looks_like_the_template_is_trained_whole() -> None:
    said = "user\nassistant\n"
    assert trained(row("s", "assistant", said)) == f"{said}<|im_end|>"


def test_the_tokens_are_those_of_the_rendered_conversation() -> None:
    renderer = Renderer(tokenizer())
    one = row("Be brief.", "Où?", "Là. 是的")
    text = renderer.text(one.messages)
    assert list(renderer.row(one).input_ids) == renderer.tokenizer(text)["input_ids"]


def test_plain_text_is_trained_whole_and_ends() -> None:
    assert trained(row(text="Some text.")) == "Some text.<|im_end|>"


def test_a_row_that_is_too_long_is_named_and_not_cut() -> None:
    short, long = row("s", "u", "a"), row("s", "u", "a" * 500)
    kept, ledger = render([short, long, short], Renderer(tokenizer()), 100)
    assert len(kept) == ledger.rendered == 2
    (said,) = ledger.too_long
    assert said.startswith("rows.jsonl:1: ") and said.endswith("limit 100")


def test_a_template_that_drops_earlier_answers_trains_the_last() -> None:
    rewriting = tokenizer()
    rewriting.chat_template = (
        "{% for m in messages %}{% if m.role != 'assistant' or loop.last %}"
        "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    rendered = Renderer(rewriting).row(row("s", "a?", "b", "c?", "d"))
    assert rewriting.decode([t for t in rendered.labels if t != IGNORED]) == "d<|im_end|>"


def test_a_template_that_changes_the_answer_is_refused_with_the_row() -> None:
    shouting = tokenizer()
    shouting.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.content | upper }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>{% endif %}"
    )
    with pytest.raises(BadData, match=r"rows.jsonl:1: .*as it was written"):
        Renderer(shouting).row(row("s", "why", "because"))


def test_a_template_that_takes_no_system_message_is_named_with_the_row() -> None:
    strict = tokenizer()
    strict.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    )
    with pytest.raises(BadData, match=r"rows\.jsonl:1: the chat template .*: no system role"):
        Renderer(strict).row(row("s", "u", "a"))


def test_a_model_without_a_template_is_refused() -> None:
    bare = tokenizer()
    bare.chat_template = None
    with pytest.raises(BadConfiguration, match="no chat template"):
        Renderer(bare)
    Renderer(bare, chat=False)
