"""A model in this process and one behind HTTP: how likely a text is, and how it goes on."""

import json
import shutil
import weakref
from pathlib import Path

import httpx
import pytest
import torch
from peft import LoraConfig, PromptEncoderConfig, TaskType, get_peft_model
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune import local
from finetune.engines import Asked, HttpEngine
from kb.errors import BadConfiguration, EngineDown, ModelBroken

ASKED = [
    Asked("Question: who?\nAnswer:", (" the reference", " an answer of some length", " x")),
    Asked("", ("the question and the answer",)),
    Asked("A context that is shared.", (" same start", " same end")),
]
PROMPTS = [[{"role": "user", "content": f"{'long ' * n}question {n}"}] for n in (0, 9, 3)]


def adapter(base: Path, folder: Path, seed: int) -> Path:
    """An adapter that does something: its B is not zero."""
    torch.manual_seed(seed)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False),
    )
    model.save_pretrained(str(folder))
    return folder


def test_a_likelihood_is_that_of_the_whole_text_read_at_once(tiny_model: Path) -> None:
    (engine,) = local.together(str(tiny_model), {})
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=engine.model.dtype).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    for group, scores in zip(ASKED, engine.score(ASKED), strict=True):
        for text, score in zip(group.continuations, scores, strict=True):
            encoded = tokenizer(group.context + text, return_offsets_mapping=True)
            ids = torch.tensor([encoded["input_ids"]])
            with torch.inference_mode():
                likely = model(ids).logits[0, :-1].float().log_softmax(-1)
            ends = [end for _, end in encoded["offset_mapping"]]
            counted = [n for n, end in enumerate(ends) if n and end > len(group.context)]
            expected = sum(likely[n - 1, ids[0, n]].item() for n in counted)
            assert score.tokens == len(counted)
            assert score.logprob == pytest.approx(expected, rel=2e-2)


def test_a_model_that_begins_every_text_with_a_token_is_given_it(
    tiny_model: Path, tmp_path: Path
) -> None:
    """As Llama and Gemma do, and as training and vLLM do."""
    begun = Path(shutil.copytree(tiny_model, tmp_path / "begun"))
    tokenizer = AutoTokenizer.from_pretrained(begun)
    begin = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{tokenizer.bos_token} $A", special_tokens=[(tokenizer.bos_token, begin)]
    )
    tokenizer.save_pretrained(begun)
    (engine,) = local.together(str(begun), {})
    assert AutoTokenizer.from_pretrained(begun)("")["input_ids"] == [begin]
    (score,), (after,) = engine.score([Asked("", ("the answer",)), Asked("the", (" answer",))])
    ids = tokenizer("the answer", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        likely = engine.model(ids).logits[0, :-1].float().log_softmax(-1)
    each = likely.gather(-1, ids[0, 1:, None])
    assert score.tokens == ids.shape[1] - 1  # the first word counts too
    assert score.logprob == pytest.approx(each.sum().item(), rel=2e-2)
    assert after.logprob == pytest.approx(each[-after.tokens :].sum().item(), rel=2e-2)


def test_a_soft_prompt_stands_once_before_the_text_that_is_scored(
    tiny_model: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = PromptEncoderConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=3)
    soft = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), config)
    soft.save_pretrained(str(tmp_path))
    bare, tuned = local.together(str(tiny_model), {"soft": tmp_path})
    asked = Asked("the question and", (" the answer of some length", " the reference"))
    for text, score in zip(asked.continuations, tuned.score([asked])[0], strict=True):
        ids = tuned.tokenizer(asked.context + text, return_tensors="pt")["input_ids"]
        with tuned._mode():
            likely = tuned.model(ids).logits[0, 3:-1].float().log_softmax(-1)
        expected = likely.gather(-1, ids[0, 1:, None])[-score.tokens :].sum().item()
        assert score.logprob == pytest.approx(expected, rel=1e-4)
    counted = [[score.tokens for score in engine.score([asked])[0]] for engine in (bare, tuned)]
    assert counted[0] == counted[1]


def test_whole_models_and_adapters_are_asked_beside_each_other(
    tiny_model: Path, tmp_path: Path
) -> None:
    """In whatever order: the base's weights and a whole model's are never taken for each other."""
    adapter(tiny_model, tmp_path / "adapter", 1)
    whole = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        for weights in whole.parameters():
            weights.mul_(1.3)
    whole.save_pretrained(tmp_path / "whole")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "whole")
    (bare,) = local.together(str(tiny_model), {})
    (_, tuned) = local.together(str(tiny_model), {"a": tmp_path / "adapter"})
    (other,) = local.together(str(tmp_path / "whole"), {})
    alone = [engine.score(ASKED) for engine in (bare, tuned, other)]
    assert alone[0] != alone[1] != alone[2] != alone[0]
    tuned_at = {"a": tmp_path / "adapter", "w": tmp_path / "whole"}
    beside = local.together(str(tiny_model), tuned_at)
    assert [engine.score(ASKED) for engine in beside] == alone
    assert [engine.score(ASKED) for engine in reversed(beside)] == alone[::-1]


def test_answers_do_not_depend_on_who_is_asked_beside(tiny_model: Path) -> None:
    (engine,) = local.together(str(tiny_model), {})
    alone = [engine.generate([prompt], 8)[0] for prompt in PROMPTS]
    assert engine.generate(PROMPTS, 8) == alone
    engine.batch_tokens = 1
    assert engine.generate(PROMPTS, 8) == alone


def test_a_model_without_a_template_answers_no_questions_and_is_named(tiny_model: Path) -> None:
    (engine,) = local.together(str(tiny_model), {})
    engine.tokenizer.chat_template = None
    with pytest.raises(BadConfiguration, match="the model has no chat template"):
        engine.generate(PROMPTS, 3)
    assert engine.score(ASKED)


def test_adapters_share_the_weights_and_do_not_meddle(tiny_model: Path, tmp_path: Path) -> None:
    (alone,) = local.together(str(tiny_model), {})
    bare = alone.score(ASKED)
    folders = {f"a{n}": adapter(tiny_model, tmp_path / f"a{n}", n) for n in (1, 2)}
    base, one, two = local.together(str(tiny_model), folders)
    assert base.model is one.model is two.model
    first = one.score(ASKED)
    second = two.score(ASKED)
    assert base.score(ASKED) == bare
    assert first != bare and second != bare and first != second
    assert one.score(ASKED) == first


def test_whole_models_are_judged_one_after_another(tiny_model: Path, tmp_path: Path) -> None:
    folders = {f"seed {n}": Path(shutil.copytree(tiny_model, tmp_path / str(n))) for n in (1, 2)}
    engines = local.together(str(tiny_model), folders)
    told, held = [], []
    for engine in engines:
        told.append(engine.score(ASKED))
        held.append(weakref.ref(engine.model))
        assert [one() is not None for one in held] == [False] * (len(held) - 1) + [True]
    assert told[0] == told[1] == told[2]


def test_a_broken_model_or_adapter_is_named(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelBroken, match="nowhere"):
        local.together(str(tmp_path / "nowhere"), {})
    (tmp_path / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelBroken, match="adapter cannot be loaded"):
        local.together(str(tiny_model), {"broken": tmp_path})


def served(request: httpx.Request) -> httpx.Response:
    """Answers as vLLM does: words are tokens, each a log-likelihood of minus its length."""
    body = json.loads(request.content)
    if request.url.path == "/v1/chat/completions":
        said = f"{body['model']}: {body['messages'][-1]['content']}"
        return httpx.Response(200, json={"choices": [{"message": {"content": said}}]})
    tokens = [f" {word}" for word in body["prompt"].split(" ")]
    tokens[0] = tokens[0][1:]
    starts = [sum(map(len, tokens[:n])) for n in range(len(tokens) + 1)]
    logprobs = [None, *(-float(len(t)) for t in tokens[1:]), -99.0]
    told = {"tokens": [*tokens, " more"], "token_logprobs": logprobs, "text_offset": starts}
    return httpx.Response(200, json={"choices": [{"logprobs": told}]})


def test_an_engine_behind_http_scores_the_continuation_only() -> None:
    engine = HttpEngine("http://e/v1", "m", transport=httpx.MockTransport(served))
    asked = [Asked("one two", (" four", " four five")), Asked("", ("one two",))]
    told = engine.score(asked)
    assert [[(s.logprob, s.tokens) for s in group] for group in told] == [
        [(-5.0, 1), (-10.0, 2)],
        [(-4.0, 1)],
    ]
    assert engine.generate(PROMPTS[:1], 8) == ["m: question 0"]


@pytest.mark.parametrize(
    "transport",
    [
        httpx.MockTransport(lambda request: httpx.Response(404, text="no such model")),
        httpx.MockTransport(lambda request: httpx.Response(200, text="<html>")),
    ],
)
def test_an_engine_that_refuses_is_said_to(transport: httpx.MockTransport) -> None:
    with pytest.raises(EngineDown, match="m: the engine"):
        HttpEngine("http://e", "m", transport=transport).generate(PROMPTS[:1], 8)
