"""The join of a query with many documents in machine code: raw features and tower outputs in, probabilities out.

The same function as `TripleTower.join` after the normaliser, for the documents of one query, without torch. What makes it fast:
a feature that is missing for all rows, and the mask of one that is missing for none, are columns of zeros and are left out; the
text towers' shares of the head are added to the interaction tower's; rows go through in blocks that stay in the cache; no
Python runs, so that threads do not wait for each other.

Legend: N rows of one query, n rows of a block, F features (2 F inputs in `Weights`), P inputs of the interaction tower that
are not all zero, R rank of a cross layer, L cross layers, W width of a layer, I width of the interaction tower's output, H
width of the first layer of the head, C classes, J documents, T width of a row of the table: share of the head and class weights
of each member, side by side.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tritower.numba_cache import njit
from tritower.products import LANES, column
from tritower.ranker import piecewise

Floats = NDArray[np.float32]
_BLOCK = 96  # rows: sixteen tiles of six, whose inputs stay in the nearer caches
_SUMS = {"reassoc", "contract"}  # sums may be taken in any order; NaN stays NaN
_NONE, _ALL = np.float32(0), np.float32(1)  # masks


class Weights(NamedTuple):
    """One member's join; matrices are (inputs, outputs). `flat` holds the layers whose widths `inner` and `outer` list."""

    down_LFR: Floats
    up_LFR: Floats
    up_LF: Floats
    first_FW: Floats
    first_W: Floats
    match_2W: Floats  # weights of the classes' match and of its logarithm; zeros without classes
    inner: NDArray[np.int64]  # widths of the interaction tower from its first layer's output on
    outer: NDArray[np.int64]  # of the head, the same
    head_IH: Floats
    flat: Floats  # of each of these layers but the first the weights, then the bias
    logit_W: Floats
    logit: np.float32


class Inputs(NamedTuple):
    """The inputs of the interaction tower that are not zero for all rows.

    `input_P` says which of the 2 F they are: features with a value, then masks (F + feature). `value` has their values (P, n),
    block after block of rows.
    """

    input_P: NDArray[np.int64]
    value: Floats


class QueryContext(NamedTuple):
    """What one member makes of a query: its share of the head, the bias included, and its class weights."""

    head_H: Floats
    class_C: Floats


def flat(layers: list[tuple[Floats, Floats]]) -> Floats:
    """The weights (outputs, inputs) and biases of layers as `Weights.flat`."""
    return plain(np.concatenate([np.empty(0), *(part for weight, bias in layers for part in (weight.T.ravel(), bias))]))


def plain(array: NDArray[np.floating[Any]]) -> Floats:
    """A float32 array in C order that may be written to: one type for the compiler, whatever it was made from."""
    return np.array(array, dtype=np.float32, order="C")


@njit(cache=True, nogil=True)
def inputs(feature_FN, maps):  # type: ignore[no-untyped-def]
    """The `Inputs` that raw features (F, N), NaN = missing, are for every member; `maps` are the normaliser's."""
    features, rows = feature_FN.shape
    missing_F = np.zeros(features, np.int64)
    for f in range(features):
        for i in range(rows):
            missing_F[f] += np.isnan(feature_FN[f, i])
    value_V, mask_M = np.flatnonzero(missing_F < rows), np.flatnonzero(missing_F)
    used = len(value_V) + len(mask_M)
    out, knot_n = _room(used * rows), np.empty(_BLOCK, np.uint32)
    for start in range(0, rows, _BLOCK):
        n = min(_BLOCK, rows - start)
        out_Pn = out[used * start : used * (start + n)].reshape(used, n)
        for v in range(len(value_V)):
            piecewise.column(feature_FN[value_V[v], start : start + n], maps, value_V[v], out_Pn[v], knot_n[:n])
            for i in range(n):
                out_Pn[v, i] = _NONE if np.isnan(out_Pn[v, i]) else out_Pn[v, i]
        for m in range(len(mask_M)):
            for i in range(n):
                out_Pn[len(value_V) + m, i] = _ALL if np.isnan(feature_FN[mask_M[m], start + i]) else _NONE
    return Inputs(np.concatenate((value_V, features + mask_M)), out)


@njit(cache=True, nogil=True)
def add_scores(given, weights, context, table_JT, row_N, start_T, out_N):  # type: ignore[no-untyped-def]
    """Add one member's probabilities of the rows to `out_N`.

    Args:
        given: the rows' `Inputs`.
        weights: the member's `Weights`.
        context: the query's `QueryContext`.
        table_JT: what the document towers tell.
        row_N: row of the table for each document.
        start_T: where the member's columns begin.
        out_N: probabilities, added to.
    """
    input_P, rows, head = given.input_P, len(row_N), len(context.head_H)
    used, layers, rank, first = len(input_P), len(weights.up_LF), weights.down_LFR.shape[2], weights.inner[0]
    first_PW = weights.first_FW[input_P]
    down_LPR, up_LPR, up_LP = weights.down_LFR[:, input_P], weights.up_LFR[:, input_P], weights.up_LF[:, input_P]
    widest = max(weights.inner.max(), weights.outer.max()) * _BLOCK
    crossed, gain, low = _room(used * _BLOCK), _room(used * _BLOCK), _room(rank * _BLOCK)
    left, right, joined = _room(widest), _room(widest), _room(head * _BLOCK)
    match_n, log_n = _room(_BLOCK), _room(_BLOCK)
    for start in range(0, rows, _BLOCK):
        n = min(_BLOCK, rows - start)
        row_n = row_N[start : start + n]
        plain_Pn = given.value[used * start : used * (start + n)].reshape(used, n)
        crossed_Pn = plain_Pn
        for layer in range(layers):
            low_Rn, gain_Pn = low[: rank * n].reshape(rank, n), gain[: used * n].reshape(used, n)
            _product(down_LPR[layer].T, crossed_Pn, low_Rn)
            _product(up_LPR[layer], low_Rn, gain_Pn)
            next_Pn = crossed[: used * n].reshape(used, n)
            _cross(plain_Pn, gain_Pn, up_LP[layer], crossed_Pn, next_Pn)
            crossed_Pn = next_Pn
        output = left[: first * n].reshape(n, first)
        _product(crossed_Pn.T, first_PW, output)
        _match(table_JT, row_n, start_T + head, context.class_C, match_n, log_n)
        _relu_with_match(output, weights.first_W, weights.match_2W, match_n, log_n)
        output, at = _layers(output, weights.flat, 0, weights.inner, left, right)
        joined_nH = joined[: head * n].reshape(n, head)
        _product(output, weights.head_IH, joined_nH)
        _relu_with_document(joined_nH, context.head_H, table_JT, row_n, start_T)
        output, _ = _layers(joined_nH, weights.flat, at, weights.outer, left, right)
        _sigmoid(output, weights.logit_W, weights.logit, out_N[start : start + n])


@njit(cache=True, nogil=True)
def _room(size):  # type: ignore[no-untyped-def]
    return np.empty(size, np.float32)


@njit(cache=True, nogil=True)
def _product(weight_AB, value_Bn, out_An):  # type: ignore[no-untyped-def]
    """A product by tiles: blocks of rows and a cross layer's rank are too small for a BLAS, which packs them first."""
    rows, terms = weight_AB.shape
    n = value_Bn.shape[1]
    if n < LANES:
        np.dot(weight_AB, value_Bn, out_An)
        return
    weight, by_row, by_term = weight_AB.ctypes.data, weight_AB.strides[0] // 4, weight_AB.strides[1] // 4
    for panel in range(0, n, LANES):
        start = min(panel, n - LANES)  # the last panel may write some columns again
        column(rows, out_An.ctypes.data + 4 * start, n, weight, by_row, by_term, value_Bn.ctypes.data + 4 * start, n, terms)


@njit(cache=True, nogil=True)
def _cross(plain_Pn, gain_Pn, bias_P, crossed_Pn, next_Pn):  # type: ignore[no-untyped-def]
    for p in range(plain_Pn.shape[0]):
        bias = bias_P[p]
        for i in range(plain_Pn.shape[1]):
            next_Pn[p, i] = crossed_Pn[p, i] + plain_Pn[p, i] * (gain_Pn[p, i] + bias)


@njit(cache=True, nogil=True, fastmath=_SUMS)
def _match(table_JT, row_n, class_at, query_C, match_n, log_n):  # type: ignore[no-untyped-def]
    for i in range(len(row_n)):
        class_C = table_JT[row_n[i], class_at : class_at + len(query_C)]
        match = np.float32(0)
        for c in range(len(query_C)):
            match += class_C[c] * query_C[c]
        match_n[i] = match
        log_n[i] = np.log(max(match, np.float32(0)) + np.float32(1e-3)) / np.float32(3) + np.float32(1)


@njit(cache=True, nogil=True)
def _relu_with_match(output_nW, bias_W, match_2W, match_n, log_n):  # type: ignore[no-untyped-def]
    for i in range(len(output_nW)):
        match, log = match_n[i], log_n[i]
        for w in range(len(bias_W)):
            output_nW[i, w] = _relu(output_nW[i, w] + bias_W[w] + match_2W[0, w] * match + match_2W[1, w] * log)


@njit(cache=True, nogil=True)
def _layers(input_nW, flat, at, widths, left, right):  # type: ignore[no-untyped-def]
    """The layers of `flat` from `at` on that follow the first width; the last output, and where the next layer begins."""
    n = len(input_nW)
    for layer in range(1, len(widths)):
        width_in, width = widths[layer - 1], widths[layer]
        output_nW = right[: width * n].reshape(n, width)
        weight_stop = at + width_in * width
        _product(input_nW, flat[at:weight_stop].reshape(width_in, width), output_nW)
        bias_W = flat[weight_stop : weight_stop + width]
        for i in range(n):
            for w in range(width):
                output_nW[i, w] = _relu(output_nW[i, w] + bias_W[w])
        input_nW, at, left, right = output_nW, weight_stop + width, right, left
    return input_nW, at


@njit(cache=True, nogil=True)
def _relu_with_document(output_nH, query_H, table_JT, row_n, head_at):  # type: ignore[no-untyped-def]
    for i in range(len(row_n)):
        document_H = table_JT[row_n[i], head_at : head_at + len(query_H)]
        for h in range(len(query_H)):
            output_nH[i, h] = _relu(output_nH[i, h] + query_H[h] + document_H[h])


@njit(cache=True, nogil=True, fastmath=_SUMS)
def _sigmoid(output_nW, logit_W, logit, out_n):  # type: ignore[no-untyped-def]
    for i in range(len(output_nW)):
        total = np.float32(0)
        for w in range(len(logit_W)):
            total += output_nW[i, w] * logit_W[w]
        out_n[i] += np.float32(1) / (np.float32(1) + np.exp(-(total + logit)))


@njit(cache=True, nogil=True)
def _relu(value):  # type: ignore[no-untyped-def]
    """NaN stays NaN: a damaged input shows in the score."""
    return np.float32(0) if value < np.float32(0) else value
