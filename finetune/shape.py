"""The size of a model, from its configuration alone: no weights are read."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from kb.errors import BadData, ModelBroken, one_line


@dataclass(frozen=True, slots=True)
class Shape:
    """What memory and time are computed from."""

    parameters: int
    embedding: int
    """Parameters of token embeddings and, if it is not the same, the output layer."""
    linear: tuple[tuple[int, int], ...]
    """(inputs, outputs) of every linear layer but the output layer."""
    names: tuple[str, ...]
    """Their names in a layer (`q_proj`), one for each of `linear`."""
    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    keys: int
    """Key and value heads."""
    most_tokens: int
    """Positions that the model knows; 0 if it does not say."""

    @property
    def attention(self) -> int:
        """Width of all query heads: not `hidden` in models that choose the size of a head."""
        return self._linear("o_proj", 0) or self.hidden

    @property
    def keyed(self) -> int:
        """Width of all key heads; the value heads' is the same."""
        return self._linear("k_proj", 1) or self.attention * self.keys // self.heads

    @property
    def largest(self) -> int:
        """Parameters of the largest matrix."""
        return max([self.vocabulary * self.hidden, *(a * b for a, b in self.linear)])

    def _linear(self, name: str, side: int) -> int:
        """Inputs (0) or outputs (1) of the first layer of this name; 0 where there is none."""
        found = (sides for n, sides in zip(self.names, self.linear, strict=True) if n == name)
        return next((sides[side] for sides in found), 0)

    def adapter(self, rank: int, target: str = "all") -> int:
        """Parameters of a LoRA adapter on `all` linear layers, or on names separated by commas."""
        wanted = None if target == "all" else {name.strip() for name in target.split(",")}
        return sum(
            rank * (inputs + outputs)
            for name, (inputs, outputs) in zip(self.names, self.linear, strict=True)
            if wanted is None or name in wanted
        )


def of(model: str) -> Shape:
    """Of a folder or hub id. Raises as `blank` does."""
    return _shape(blank(model))


def blank(model: str) -> PreTrainedModel:
    """The model of a folder or hub id without its weights: its tensors have a shape and hold
    nothing. Raises BadData naming a folder's config.json, ModelBroken for a hub id."""
    try:
        config = AutoConfig.from_pretrained(model)
        with torch.device("meta"):
            made = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    except Exception as error:  # a wrong value in it raises what the code raises that meets it
        if Path(model).is_dir():
            file = Path(model) / "config.json"
            raise BadData(f"{file}: no model can be made of it: {one_line(error)}") from error
        raise ModelBroken(f"{model}: config.json cannot be read: {one_line(error)}") from error
    assert isinstance(made, PreTrainedModel)
    return made


def _shape(model: PreTrainedModel) -> Shape:
    text = model.config.get_text_config()
    embedding = {
        id(module.weight): module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) or name.endswith("lm_head")
    }
    linear = [
        (name.rsplit(".", 1)[-1], module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not name.endswith("lm_head")
    ]
    heads = int(text.num_attention_heads)
    return Shape(
        parameters=sum({id(p): p.numel() for p in model.parameters()}.values()),
        embedding=sum(embedding.values()),
        linear=tuple((module.in_features, module.out_features) for _, module in linear),
        names=tuple(name for name, _ in linear),
        vocabulary=int(text.vocab_size),
        hidden=int(text.hidden_size),
        intermediate=int(getattr(text, "intermediate_size", 0) or 4 * text.hidden_size),
        layers=int(text.num_hidden_layers),
        heads=heads,
        keys=int(getattr(text, "num_key_value_heads", None) or heads),
        most_tokens=int(getattr(text, "max_position_embeddings", 0) or 0),
    )
