"""A model in this process, judged without any server; one adapter of it switched on, or none.

The base and adapters share its weights, and whole models are held one after another, so that all
are judged in the memory of one; of two where there are both. Knows weights and tokens; no items
and no judges.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from tqdm import tqdm
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from finetune import device, vocabulary, weights
from finetune.candidates import ADAPTER_CONFIG
from finetune.engines import Asked, Messages, Score
from finetune.render import Renderer
from finetune.rows import Message
from kb.errors import ModelBroken, one_line

BATCH_TOKENS = 8_192
"""Of prompts generated together, padding included."""


@dataclass(slots=True)
class Shelf:
    """Whole models, one of them in memory: that which was asked for last."""

    dtype: torch.dtype
    _folder: str = ""
    _held: PreTrainedModel | None = None

    def model(self, folder: str) -> PreTrainedModel:
        """Raises ModelBroken."""
        if self._held is None or self._folder != folder:
            self._held = None  # before the next is read
            self._held, self._folder = _model(folder, self.dtype), folder
        return self._held


@dataclass(slots=True)
class LocalEngine:
    """`adapter`: the name of one loaded into the model, or None for the bare base."""

    name: str
    weights: Callable[[], Any]
    tokenizer: PreTrainedTokenizerBase
    adapter: str | None = None
    batch_tokens: int = BATCH_TOKENS

    @property
    def model(self) -> Any:
        return self.weights()

    def generate(self, prompts: Sequence[Messages], max_tokens: int) -> list[str]:
        """Greedy answers; prompts of like length are generated together."""
        texts = [self._rendered(messages) for messages in prompts]
        lengths = [len(ids) for ids in self.tokenizer(texts, add_special_tokens=False)["input_ids"]]
        out = [""] * len(texts)
        with self._mode(), self._bar(len(texts)) as bar:
            for batch in _batches(lengths, max_tokens, self.batch_tokens):
                said = self._continue([texts[n] for n in batch], max_tokens)
                for n, text in zip(batch, said, strict=True):
                    out[n] = text
                bar.update(len(batch))
        return out

    def score(self, asked: Sequence[Asked]) -> list[list[Score]]:
        out = []
        with self._mode(), self._bar(len(asked)) as bar:
            for group in asked:
                out.append(self._likelihoods(group))
                bar.update()
        return out

    def _bar(self, total: int) -> Any:
        """On standard error, for people only."""
        return tqdm(total=total, desc=self.name, leave=False, disable=None)

    def _rendered(self, messages: Messages) -> str:
        """Raises BadConfiguration where there is no chat template, BadData where it does not take
        the messages."""
        said = [Message.model_validate(message) for message in messages]
        return Renderer(self.tokenizer).text(said, ask=True)

    def _continue(self, texts: list[str], max_tokens: int) -> list[str]:
        encoded = self._encoded(texts)
        made = self.model.generate(
            **encoded,
            max_new_tokens=max_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        new = made[:, encoded["input_ids"].shape[1] :]
        return [str(text).strip() for text in self.tokenizer.batch_decode(new, True)]

    def _encoded(self, texts: list[str]) -> dict[str, torch.Tensor]:
        self.tokenizer.padding_side = "left"
        encoded = self.tokenizer(texts, padding=True, add_special_tokens=False, return_tensors="pt")
        encoded.pop("token_type_ids", None)
        return {name: tensor.to(self.model.device) for name, tensor in encoded.items()}

    def _likelihoods(self, group: Asked) -> list[Score]:
        """The context is read once, then all continuations beside each other on its cache."""
        rows = [self._split(group.context, text) for text in group.continuations]
        if self._has_soft_prompt():
            return [self._whole(row, counted) for row, counted in rows]
        ids = [row for row, _ in rows]
        common = _common([row[:counted] for row, counted in rows])
        shared = max(1, min(common, *(len(row) - 1 for row in ids)))
        rest = [row[shared:] for row in ids]
        width = max(map(len, rest))
        pad = self.tokenizer.pad_token_id or 0
        device = self.model.device
        cache = DynamicCache(config=self.model.config)
        first = torch.tensor([ids[0][:shared]], device=device)
        read = self.model(first, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        cache.batch_repeat_interleave(len(rest))
        following = torch.tensor([row + [pad] * (width - len(row)) for row in rest], device=device)
        # What is padded comes after everything that counts, so that no mask is needed.
        told = self.model(following, past_key_values=cache, use_cache=True).logits
        logits = torch.cat([read.expand(len(rest), -1, -1), told[:, :-1]], dim=1)
        out = []
        for n, (row, counted) in enumerate(rows):
            start, end = max(counted, shared) - shared, len(row) - shared
            likely = logits[n, start:end].float().log_softmax(-1)
            wanted = following[n, start:end, None]
            out.append(Score(likely.gather(-1, wanted).sum().item(), end - start))
        return out

    def _has_soft_prompt(self) -> bool:
        """P-tuning's virtual tokens: peft puts them in front of whatever is read, so of what
        follows a cache too."""
        if self.adapter is None:
            return False
        return bool(self.model.peft_config[self.adapter].is_prompt_learning)

    def _whole(self, row: list[int], counted: int) -> Score:
        """One continuation with its context, read at once; virtual tokens have logits too."""
        start = max(counted, 1)
        ids = torch.tensor([row], device=self.model.device)
        logits = self.model(ids).logits[0, -len(row) :]
        likely = logits[start - 1 : -1].float().log_softmax(-1)
        return Score(likely.gather(-1, ids[0, start:, None]).sum().item(), len(row) - start)

    def _split(self, context: str, text: str) -> tuple[list[int], int]:
        """Tokens of both together, and the first that holds something of the continuation. In front
        stands what this tokenizer begins every text with: without it some models write noise."""
        encoded = self.tokenizer(
            context + text, add_special_tokens=False, return_offsets_mapping=True
        )
        begin = self.tokenizer("")["input_ids"]
        begin = begin[:1] if begin[:1] == [self.tokenizer.bos_token_id] else []
        ends = [end for _, end in encoded["offset_mapping"]]
        counted = len(begin) + sum(end <= len(context) for end in ends)
        return begin + encoded["input_ids"], counted

    @contextmanager
    def _mode(self) -> Iterator[None]:
        switched = isinstance(self.model, PeftModel)
        if switched and self.adapter:
            self.model.set_adapter(self.adapter)
        off = self.model.disable_adapter() if switched and not self.adapter else nullcontext()
        self.model.eval()
        with off, torch.inference_mode():
            yield


def together(base: str, tuned: Mapping[str, Path]) -> list[LocalEngine]:
    """The base, then each tuned model (its name -> the folder of an adapter or of a whole model).

    Adapters share the base's weights; a whole model is read when it is asked something. Raises
    ModelBroken.
    """
    shelf = Shelf(torch.bfloat16 if device.has_bf16() else torch.float32)
    tokenizer = _tokenizer(base)
    adapters = {name: at for name, at in tuned.items() if (at / ADAPTER_CONFIG).is_file()}
    shared: Any = None
    for name, folder in adapters.items():
        bare = shelf.model(base) if shared is None else shared
        shared = _with_adapter(bare, folder, _inside(tuned, name))

    def weights() -> Any:
        return shelf.model(base) if shared is None else shared

    engines = [LocalEngine(base, weights, tokenizer)]
    for name, folder in tuned.items():
        if name in adapters:
            engines.append(LocalEngine(name, weights, tokenizer, _inside(tuned, name)))
        else:
            own = partial(shelf.model, str(folder))
            engines.append(LocalEngine(name, own, _tokenizer(str(folder))))
    return engines


def _inside(tuned: Mapping[str, Path], name: str) -> str:
    """What an adapter is called within the model; PEFT takes no dots."""
    return f"tuned{list(tuned).index(name)}"


def _with_adapter(model: Any, folder: Path, name: str) -> PeftModel:
    try:
        if isinstance(model, PeftModel):
            model.load_adapter(str(folder), adapter_name=name)
            return model
        return PeftModel.from_pretrained(model, str(folder), adapter_name=name)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelBroken(f"{folder}: the adapter cannot be loaded: {one_line(error)}") from error


def _model(folder: str, dtype: torch.dtype) -> PreTrainedModel:
    model = weights.read(AutoModelForCausalLM, folder, dtype=dtype)
    if torch.cuda.is_available():
        model.to(torch.device("cuda"))  # type: ignore[arg-type]
    return model


def _tokenizer(folder: str) -> PreTrainedTokenizerBase:
    tokenizer = vocabulary.load(folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _batches(lengths: Sequence[int], more: int, most: int) -> Iterator[list[int]]:
    """Indices, longest first, so that running out of memory shows at once."""
    batch: list[int] = []
    for n in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) + 1) * (lengths[batch[0]] + more) > most:
            yield batch
            batch = []
        batch.append(n)
    if batch:
        yield batch


def _common(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with."""
    for n, column in enumerate(zip(*rows, strict=False)):
        if len(set(column)) > 1:
            return n
    return min(map(len, rows))
