"""A BERT encoder for one short text at a time, in machine code: weights in float16, sums in float32.

A query of a few words multiplies few numbers but reads every weight, so the memory sets the pace: float16 is half as much to
read. No inference library keeps weights so and computes in float32; those that compute in bf16 or int8 give other vectors on
processors that lack the instructions. Here every sum has one order, and exponential and error function are written out, so the
vectors are the same bits on every processor with fused multiply-adds.

Three files, mapped into memory, so that the processes of a server share them (`halving.py` writes them):

halves.json       {"layers", "heads", "dim", "inner", "words", "positions", "epsilon"}
halves.npy        uint16, the bits of float16: the words' embeddings (V, D), then of each layer the panels
                  (`products.panels`) of query, key and value (D, 3 D), output (D, D), inner (D, W) and outer (W, D)
singles.npy       float32: positions (S, D), the sort of token added; scale and shift (2, D) of the first normalisation;
                  of each layer the biases of query, key and value (3 D) and of the output (D), scale and shift (2, D),
                  the biases of inner (W) and outer (D), scale and shift (2, D)

The network is BERT's (Devlin et al. 2019) with mean pooling (Reimers and Gurevych 2019).

Legend: L tokens, D dimension, W width of the inner layer, V words, S positions, H heads, E dimension of a head.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types as _types
from numba.extending import intrinsic
from numpy.typing import NDArray

from tritower import storage
from tritower.errors import ArtifactError
from tritower.numba_cache import njit
from tritower.products import LANES, column, half_column, padded

types: Any = _types  # numba's are not typed
FACTS, HALVES, SINGLES = "halves.json", "halves.npy", "singles.npy"
Vector = NDArray[np.float32]
_REMEDY = "Write or copy it again: what a bundle holds, with the bundle (python -m tritower.serving bundle)."


class Transformer:
    """The encoder. Any number of threads may call it.

    Attributes:
        positions: S, the most tokens that it takes.
    """

    def __init__(self, folder: Path) -> None:
        """Map it.

        Raises:
            ArtifactError: a file is missing or damaged.
        """
        try:
            facts = storage.read_json(folder / FACTS)
            self.dim, self.positions = int(facts["dim"]), int(facts["positions"])
            self._words, self._epsilon = int(facts["words"]), np.float32(facts["epsilon"])
            self._shape = (int(facts["layers"]), int(facts["heads"]), self.dim, int(facts["inner"]))
            self._half, self._single = (np.asarray(np.load(folder / name, mmap_mode="r")) for name in (HALVES, SINGLES))
            sizes = sizes_of(*self._shape, self._words, self.positions)
            found, kinds = (self._half.size, self._single.size), [str(one.dtype) for one in (self._half, self._single)]
            if kinds != ["uint16", "float32"] or found != sizes:
                raise ValueError(f"{found} numbers of {kinds} where {sizes} are expected")
        except (KeyError, ValueError, OSError) as error:
            raise ArtifactError(f"the encoder cannot be read: {error!r}", where=str(folder), remedy=_REMEDY) from error

    def __call__(self, ids_L: NDArray[np.int64]) -> Vector:
        """The L2-normalised vector (D,) of a text's tokens.

        Raises:
            IndexError: there is no such token, or there are none or too many.
        """
        if not 0 < len(ids_L) <= self.positions or not 0 <= ids_L.min() <= ids_L.max() < self._words:
            raise IndexError(f"{len(ids_L)} tokens for {self.positions} places, or one that is not below {self._words}")
        out_D = np.empty(self.dim, np.float32)
        _encode(ids_L, self._half, self._single, self._words, self.positions, self._shape, self._epsilon, out_D)
        return out_D

    def warm(self, tokens: int) -> None:
        """Encode once: every length costs the same the first time."""
        self(np.zeros(min(tokens, self.positions), np.int64))


def sizes_of(layers: int, heads: int, dim: int, inner: int, words: int, positions: int) -> tuple[int, int]:
    """How many numbers the two files have."""
    half = words * dim + layers * (4 * dim * dim + 2 * dim * inner)
    return half, positions * dim + 2 * dim + layers * (9 * dim + inner)


def _scaled() -> Any:
    """A function (float32, whole number n as int32) -> the number times 2**n, for -127 < n < 128."""

    def typed(typing_context: Any, value: Any, power: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            value, power = arguments
            bits = builder.shl(builder.add(power, power.type(127)), power.type(23))
            return builder.fmul(value, builder.bitcast(bits, ir.FloatType()))

        return types.float32(types.float32, types.int32), codegen

    return intrinsic(typed)


_times_two_to = _scaled()
_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_LOG2_E, _LN2_HIGH, _LN2_LOW = np.float32(1.4426950408889634), np.float32(0.693359375), np.float32(-2.12194440054690583e-4)
_LEAST = np.float32(-87)  # what lies below has an exponential of 0 here, as float32 has hardly one
_C2, _C3, _C4, _C5, _C6, _C7 = (np.float32(1 / math.factorial(n)) for n in range(2, 8))
_SQRT_HALF = np.float32(math.sqrt(0.5))
# Abramowitz and Stegun, 7.1.26: the error function to 1.5e-7.
_P, _A1, _A2, _A3, _A4, _A5 = (
    np.float32(one) for one in (0.3275911, 0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
)


@njit(cache=True, nogil=True, inline="always")
def _exp(x):  # type: ignore[no-untyped-def]
    """Of a number <= 0: by 2**n and the series of what is left, |r| <= log(2) / 2."""
    x = max(x, _LEAST)
    n = np.int32(x * _LOG2_E - _HALF)
    whole = np.float32(n)
    r = (x - whole * _LN2_HIGH) - whole * _LN2_LOW
    series = _C2 + r * (_C3 + r * (_C4 + r * (_C5 + r * (_C6 + r * _C7))))
    return _times_two_to(_ONE + (r + r * r * series), n)


@njit(cache=True, nogil=True)
def _gelu(value_LW, bias_W):  # type: ignore[no-untyped-def]
    """x P(X <= x) of x = value + bias, X standard normal."""
    for i in range(value_LW.shape[0]):
        for w in range(value_LW.shape[1]):
            x = value_LW[i, w] + bias_W[w]
            z = abs(x) * _SQRT_HALF
            t = _ONE / (_ONE + _P * z)
            tail = _HALF * t * (_A1 + t * (_A2 + t * (_A3 + t * (_A4 + t * _A5)))) * _exp(-z * z)
            value_LW[i, w] = x * (tail if x < _ZERO else _ONE - tail)


@njit(cache=True, nogil=True)
def _sum(value_D):  # type: ignore[no-untyped-def]
    """Sixteen sums side by side, then theirs: one order, and vectors for the compiler. D is a multiple of 16."""
    lane = np.zeros(LANES, np.float32)
    for start in range(0, len(value_D), LANES):
        for j in range(LANES):
            lane[j] += value_D[start + j]
    total = _ZERO
    for j in range(LANES):
        total += lane[j]
    return total


@njit(cache=True, nogil=True)
def _normalise(token_LD, scale_D, shift_D, epsilon):  # type: ignore[no-untyped-def]
    """Layer normalisation, in place."""
    dim = token_LD.shape[1]
    square_D = np.empty(dim, np.float32)
    for i in range(len(token_LD)):
        token_D = token_LD[i]
        mean = _sum(token_D) / np.float32(dim)
        for d in range(dim):
            token_D[d] -= mean
            square_D[d] = token_D[d] * token_D[d]
        factor = _ONE / np.sqrt(_sum(square_D) / np.float32(dim) + epsilon)
        for d in range(dim):
            token_D[d] = token_D[d] * factor * scale_D[d] + shift_D[d]


@njit(cache=True, nogil=True)
def _dense(value_LK, place, out_LN):  # type: ignore[no-untyped-def]
    """The product with panels of float16 at an address; N is a multiple of 16. The address behind them."""
    rows, terms = value_LK.shape
    columns = out_LN.shape[1]
    value, out = value_LK.ctypes.data, out_LN.ctypes.data
    for start in range(0, columns, LANES):
        half_column(rows, out + 4 * start, columns, value, terms, 1, place + 2 * start * terms, LANES, terms)
    return place + 2 * terms * columns


@njit(cache=True, nogil=True)
def _attend(query_L3D, heads, out_LD):  # type: ignore[no-untyped-def]
    """Each token's mean of all values, weighted by the softmax of query and key; query, key and value lie side by side."""
    tokens, dim = out_LD.shape
    each = dim // heads
    wide, across = padded(tokens), padded(each)
    key_EL, value_LE = np.zeros((each, wide), np.float32), np.zeros((tokens, across), np.float32)
    weight_LL, mean_LE = np.empty((tokens, wide), np.float32), np.empty((tokens, across), np.float32)
    scale = _ONE / np.sqrt(np.float32(each))
    for h in range(heads):
        for i in range(tokens):
            for e in range(each):
                key_EL[e, i] = query_L3D[i, dim + h * each + e] * scale
                value_LE[i, e] = query_L3D[i, 2 * dim + h * each + e]
        query = query_L3D.ctypes.data + 4 * h * each
        for start in range(0, wide, LANES):
            to, key = weight_LL.ctypes.data + 4 * start, key_EL.ctypes.data + 4 * start
            column(tokens, to, wide, query, 3 * dim, 1, key, wide, each)
        for i in range(tokens):
            most, total = weight_LL[i, 0], _ZERO
            for j in range(tokens):
                most = max(most, weight_LL[i, j])
            for j in range(tokens):
                weight_LL[i, j] = _exp(weight_LL[i, j] - most)
                total += weight_LL[i, j]
            for j in range(tokens):
                weight_LL[i, j] /= total
        for start in range(0, across, LANES):
            to, value = mean_LE.ctypes.data + 4 * start, value_LE.ctypes.data + 4 * start
            column(tokens, to, across, weight_LL.ctypes.data, wide, 1, value, across, tokens)
        for i in range(tokens):
            for e in range(each):
                out_LD[i, h * each + e] = mean_LE[i, e]


@njit(cache=True, nogil=True)
def _add(token_LD, change_LD, bias_D):  # type: ignore[no-untyped-def]
    for i in range(token_LD.shape[0]):
        for d in range(token_LD.shape[1]):
            token_LD[i, d] += change_LD[i, d] + bias_D[d]


@njit(cache=True, nogil=True)
def _encode(ids_L, half, single, words, positions, shape, epsilon, out_D):  # type: ignore[no-untyped-def]
    """The vector of a text; see the module for what lies where."""
    layers, heads, dim, inner = shape
    tokens, one = len(ids_L), np.ones(1, np.float32)
    token_LD, change_LD = np.empty((tokens, dim), np.float32), np.empty((tokens, dim), np.float32)
    query_L3D, inner_LW = np.empty((tokens, 3 * dim), np.float32), np.empty((tokens, inner), np.float32)
    for i in range(tokens):
        word = half.ctypes.data + 2 * dim * ids_L[i]
        for start in range(0, dim, LANES):  # once one: float16 as float32
            half_column(1, token_LD[i].ctypes.data + 4 * start, dim, one.ctypes.data, 1, 1, word + 2 * start, LANES, 1)
        for d in range(dim):
            token_LD[i, d] += single[i * dim + d]
    at, place = positions * dim, half.ctypes.data + 2 * words * dim
    _normalise(token_LD, single[at : at + dim], single[at + dim : at + 2 * dim], epsilon)
    at += 2 * dim
    for _ in range(layers):
        place = _dense(token_LD, place, query_L3D)
        for i in range(tokens):
            for d in range(3 * dim):
                query_L3D[i, d] += single[at + d]
        at += 3 * dim
        _attend(query_L3D, heads, change_LD)
        attended_LD = query_L3D.ravel()[: tokens * dim].reshape(tokens, dim)
        place = _dense(change_LD, place, attended_LD)
        _add(token_LD, attended_LD, single[at : at + dim])
        _normalise(token_LD, single[at + dim : at + 2 * dim], single[at + 2 * dim : at + 3 * dim], epsilon)
        at += 3 * dim
        place = _dense(token_LD, place, inner_LW)
        _gelu(inner_LW, single[at : at + inner])
        at += inner
        place = _dense(inner_LW, place, change_LD)
        _add(token_LD, change_LD, single[at : at + dim])
        _normalise(token_LD, single[at + dim : at + 2 * dim], single[at + 2 * dim : at + 3 * dim], epsilon)
        at += 3 * dim
    square_D = np.empty(dim, np.float32)
    for d in range(dim):
        total = _ZERO
        for i in range(tokens):
            total += token_LD[i, d]
        out_D[d] = total / np.float32(tokens)
        square_D[d] = out_D[d] * out_D[d]
    length = max(np.sqrt(_sum(square_D)), np.float32(1e-12))
    for d in range(dim):
        out_D[d] /= length
