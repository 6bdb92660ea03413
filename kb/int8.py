"""A sentence-transformers encoder on OpenVINO, with 8-bit weights: what makes CPUs embed faster.

The weights of every linear layer are rounded to int8, a scale for each output channel, and so are
the embeddings of words, a scale for each; activations are quantised as they come, 64 values at a
time, so that nothing has to be calibrated. The vectors
of the bundled multilingual-e5-small keep a cosine of 0.9997 or more to those of float32
(docs/decisions/012-int8-encoder.md). The only file that imports openvino.
"""

import hashlib
import logging
import re
import warnings
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from kb.locks import held

if TYPE_CHECKING:
    import openvino
    from sentence_transformers import SentenceTransformer

FORMAT = 2  # raise it when the conversion writes something else: kept files are then made anew
_UNNAMED = re.compile(r"[0-9a-f]{16}\.(xml|bin)")
"""Files that did not say yet which model they are of: conversions of `FORMAT` 1 and 2 at first."""
_GROUP = 64
"""Activations that share a scale. 384 is some 6% faster and ten times further from float32."""
_LEVELS = 127
_NEAR = 0.995
_PROBES = (
    "passage: The tenant may end the lease with three months' notice; section 4.2 applies.",
    "passage: 劳动合同期限三个月以上不满一年的，试用期不得超过一个月。",
    "query: 12 mg/kg?",
)
_log = logging.getLogger(__name__)
Floats = npt.NDArray[np.float32]


def suits() -> bool:
    """Whether this machine shall compute so: OpenVINO is installed, and there is no GPU."""
    return util.find_spec("openvino") is not None and not torch.cuda.is_available()


def hasten(model: "SentenceTransformer", keep: Path) -> bool:
    """Let the transformer of `model` (float32, on the CPU) run on OpenVINO from now on.

    The converted weights are kept in the folder `keep` for the next time; those of an earlier
    version of the model, or of this code, are deleted. A model that cannot be converted, or whose
    vectors would come out otherwise, stays as it was; a warning says why. Returns whether it was
    done.
    """
    encoder = model[0]
    inner = getattr(encoder, "model", None)
    try:
        if not isinstance(inner, PreTrainedModel):
            raise TypeError(f"{type(encoder).__name__} holds no transformer of a known kind")
        source, version = _source(inner), _version(inner)
        file = keep / f"{source}-{version}.xml"
        with held(keep / ".lock", alone=True):
            if not file.exists():
                _convert(inner, file)
            _delete_outdated(keep, source, file.stem)
        before = model.encode(_PROBES, normalize_embeddings=True, show_progress_bar=False)
        encoder.model = _OnOpenVino(inner.config, file)
        after = model.encode(_PROBES, normalize_embeddings=True, show_progress_bar=False)
        if (nearness := float((before * after).sum(axis=1).min())) < _NEAR:
            encoder.model = inner
            raise ValueError(f"8-bit weights move its vectors to a cosine of {nearness:.4f}")
    except (RuntimeError, TypeError, ValueError) as error:
        _log.warning("the embedder stays on torch, which is slower here: %s", error)
        return False
    return True


class _OnOpenVino(torch.nn.Module):
    """Takes a transformer's place: token ids (batch, length) -> hidden states."""

    def __init__(self, config: Any, file: Path) -> None:
        super().__init__()
        import openvino

        self.config = config
        self.device = torch.device("cpu")
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": _GROUP,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        compiled = openvino.Core().compile_model(file, "CPU", options)
        self._request = compiled.create_infer_request()

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: object
    ) -> dict[str, torch.Tensor]:
        out = self._request.infer([input_ids.numpy(), attention_mask.numpy()])[0]
        return {"last_hidden_state": torch.from_numpy(np.array(out))}


class _Hidden(torch.nn.Module):
    """The one output that is used, for tracing."""

    def __init__(self, inner: PreTrainedModel) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        out = self.inner(input_ids=input_ids, attention_mask=attention_mask)
        hidden: torch.Tensor = out.last_hidden_state
        return hidden


def _convert(inner: PreTrainedModel, file: Path) -> None:
    import openvino

    example = torch.ones((2, 8), dtype=torch.long)
    with torch.inference_mode(), warnings.catch_warnings():
        # The tracer warns of every branch on a shape; dynamic shapes are what the test compares.
        warnings.simplefilter("ignore")
        graph = openvino.convert_model(
            _Hidden(inner).eval(),
            example_input={"input_ids": example, "attention_mask": example},
        )
    for node in graph.get_ordered_ops():
        if node.get_type_name() == "MatMul":
            _round(node)
        elif node.get_type_name() == "Gather":
            _round_table(node)
    # Beside, then renamed; the weights first, since whoever sees the .xml opens both.
    fresh = file.with_name(".new.xml")
    openvino.save_model(graph, fresh)
    fresh.with_suffix(".bin").replace(file.with_suffix(".bin"))
    fresh.replace(file)


def _round(matmul: "openvino.Node") -> None:
    """Put int8 weights and a scale for each output channel in the place of float ones."""
    from openvino import Type, opset13

    constant = matmul.input_value(1).get_node()
    if constant.get_type_name() != "Constant" or len(constant.get_output_shape(0)) != 2:
        return  # the product of two activations, in attention
    weights = np.asarray(constant.data, np.float32)
    whole, scales = _whole(weights, 1 if matmul.get_attributes()["transpose_b"] else 0)
    back = opset13.convert(opset13.constant(whole), Type.f32)
    scaled = opset13.multiply(back, opset13.constant(scales))
    matmul.input(1).replace_source_output(scaled.output(0))


def _round_table(gather: "openvino.Node") -> None:
    """The same for a table of embeddings, a scale for each row. Only the rows that are looked up
    become floats: three quarters less memory, 290 MB with 250,000 words of 384 dimensions."""
    from openvino import Type, opset13

    table, rows, axis = (gather.input_value(i) for i in range(3))
    constant = table.get_node()
    if constant.get_type_name() != "Constant" or table.get_element_type() != Type.f32:
        return
    if len(constant.get_output_shape(0)) != 2 or axis.get_node().data.item() != 0:
        return
    whole, scales = _whole(np.asarray(constant.data, np.float32), 1)
    back = opset13.convert(opset13.gather(opset13.constant(whole), rows, axis), Type.f32)
    scaled = opset13.multiply(back, opset13.gather(opset13.constant(scales), rows, axis))
    gather.output(0).replace(scaled.output(0))


def _whole(weights: Floats, axis: int) -> tuple[npt.NDArray[np.int8], Floats]:
    """Whole numbers, and the scales that make them `weights` again: one for all along `axis`."""
    scales = np.maximum(np.abs(weights).max(axis=axis, keepdims=True), 1e-12) / _LEVELS
    whole = np.clip(np.rint(weights / scales), -_LEVELS, _LEVELS).astype(np.int8)
    return whole, scales.astype(np.float32)


def _delete_outdated(keep: Path, source: str, stays: str) -> None:
    """Whoever computes with one has its weights in memory."""
    for file in keep.glob("*.*"):
        if file.stem != stays and (
            file.stem.startswith(f"{source}-") or _UNNAMED.fullmatch(file.name)
        ):
            file.unlink()


def _source(inner: PreTrainedModel) -> str:
    return _digest([str(inner.config._name_or_path)])


def _version(inner: PreTrainedModel) -> str:
    """What the kept file depends on: the weights, the conversion and the library."""
    folder = Path(inner.config._name_or_path)
    parts = [str(getattr(inner.config, "_commit_hash", None)), str(FORMAT)]
    parts.append(metadata.version("openvino"))
    for weights in sorted(folder.glob("*.safetensors")) if folder.is_dir() else []:
        stat = weights.stat()
        parts.append(f"{weights.name} {stat.st_size} {stat.st_mtime_ns}")
    return _digest(parts)


def _digest(parts: list[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
