"""The weights of a base model, all of them: a model that would be random in part is refused."""

from typing import Any

from safetensors import SafetensorError
from transformers import PreTrainedModel

from kb.errors import ModelBroken, one_line

_MISMATCH = "ignore_mismatched_sizes"
"""In what transformers says of weights of other shapes; files of a hub id are not seen before."""


def read(kind: Any, located: str, *, new_head: bool = False, **options: Any) -> PreTrainedModel:
    """A model of the auto class `kind`, of a folder or hub id. With `new_head` what stands on top
    of the base is to be trained from nothing. Raises ModelBroken for weights that cannot be read,
    have other shapes than config.json says, or lack some of its tensors: transformers makes these
    up, with a warning."""
    try:
        model, seen = kind.from_pretrained(located, output_loading_info=True, **options)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelBroken(f"{located}: the model cannot be read: {one_line(error)}") from error
    except RuntimeError as error:
        if _MISMATCH not in str(error):  # out of memory, say
            raise
        said = "its weights have other shapes than config.json says"
        raise ModelBroken(f"{located}: the model cannot be read: {said}") from error
    assert isinstance(model, PreTrainedModel)
    needed = f"{model.base_model_prefix}." if new_head else ""
    if missing := sorted(name for name in seen["missing_keys"] if name.startswith(needed)):
        said = f"its weights lack {len(missing)} tensors of config.json's model: {missing[0]}"
        raise ModelBroken(f"{located}: {said}")
    return model
