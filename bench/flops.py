"""How much of a processor's arithmetic a training run uses: model-FLOP utilisation (MFU).

MFU = FLOPs that the model needs for its real tokens / seconds / FLOPs of the processor per second,
as in PaLM (arXiv 2204.02311, appendix B), where a parameter in a matrix costs 2 FLOPs a token
forward, 2 backward for its input and 2 for itself:

    full          6 N
    LoRA, QLoRA   4 N + 6 A     nothing is computed for frozen weights themselves

N: parameters of the linear layers for every token that is no padding, and of the output layer for
every trained token, as no other logits are needed. A: parameters of the adapter. Attention scores
(12 x layers x width x length a token), recomputation and the unpacking of 4-bit weights are not
counted: the figures are a little low rather than high.
"""

import time

import torch

from finetune.shape import Shape

DENSE_BF16 = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
}
"""FLOPs per second without sparsity, NVIDIA's data sheets; the first name that fits counts."""


def needed(shape: Shape, method: str, rank: int, tokens: int, trained: int) -> float:
    """FLOPs of one pass over `tokens`, of which `trained` have a label."""
    weights = (
        tokens * sum(a * b for a, b in shape.linear) + trained * shape.vocabulary * shape.hidden
    )
    return 6.0 * weights if method == "full" else 4.0 * weights + 6.0 * tokens * shape.adapter(rank)


def peak(dtype: torch.dtype) -> float:
    """FLOPs per second: from the data sheet, or of the best of ten large matrix products now."""
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        for known, flops in DENSE_BF16.items():
            if all(word in name for word in known.split()) and dtype == torch.bfloat16:
                return flops
    return _measured(dtype)


def _measured(dtype: torch.dtype) -> float:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = 8192 if device == "cuda" else 2048
    one = torch.randn(size, size, dtype=dtype, device=device)
    best = float("inf")
    for _ in range(10):
        begun = time.perf_counter()
        (one @ one)[0, 0].item()  # waits for the GPU
        best = min(best, time.perf_counter() - begun)
    return 2 * size**3 / best
