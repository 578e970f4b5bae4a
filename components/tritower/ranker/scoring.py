"""Bulk scoring: each distinct text goes through its tower once, rows through the interaction tower and the head.

For one search at a time, without torch, see `online.py`; its scores are these to 1e-6.

Legend: N rows, M members, T texts, U distinct ones, K kept ones, W width of what is kept of a tower's output, F
features.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tritower.ranker.artifact import Artifact
from tritower.ranker.batches import document_keys, document_vectors, mapped
from tritower.ranker.config import RankerConfig
from tritower.ranker.network import TextTower, TripleTower

_CHUNK = 8192


class Scorer:
    """Scores rows with a trained model; tower outputs are kept between calls.

    Args:
        artifact: the model.
        matrix_TD: text embeddings of the model's encoder.
    """

    def __init__(self, artifact: Artifact, matrix_TD: NDArray[Any]) -> None:
        self.normaliser = artifact.normaliser
        texts_TD = mapped(matrix_TD)
        self.members = [_Member(member.relevance, texts_TD, artifact.config) for member in artifact.members]

    def score(
        self,
        query_N: NDArray[Any],
        document_N: NDArray[Any],
        feature_NF: NDArray[np.float32],
        description_N1: NDArray[np.int32],
    ) -> NDArray[np.float32]:
        """Probability of a click at the top position (N,).

        Args:
            query_N: text numbers of the queries.
            document_N: text numbers of the documents.
            feature_NF: raw features, NaN = missing.
            description_N1: text numbers of descriptions, -1 = none; no column for a model without descriptions.
        """
        document_N = document_keys(mapped(document_N), mapped(description_N1)).numpy()
        feature_NF = self.normaliser.apply(feature_NF)
        out_N = np.empty(len(query_N), dtype=np.float32)
        for start in range(0, len(query_N), _CHUNK):
            part = slice(start, start + _CHUNK)
            feature_BF = torch.from_numpy(feature_NF[part])
            with torch.inference_mode():
                score_MB = [torch.sigmoid(member(query_N[part], document_N[part], feature_BF)) for member in self.members]
                out_N[part] = torch.stack(score_MB).mean(0).numpy()
        return out_N


class _Member:
    """One network with its tower outputs."""

    def __init__(self, tower: TripleTower, matrix_TD: Tensor, config: RankerConfig) -> None:
        self.tower = tower
        vectors = functools.partial(document_vectors, matrix_TD)
        self.queries = _Cache(tower.query_tower, functools.partial(vectors, described=False))
        self.documents = _Cache(tower.document_tower, functools.partial(vectors, described=config.network.descriptions))

    def __call__(self, query_B: NDArray[Any], document_B: NDArray[Any], feature_BF: Tensor) -> Tensor:
        return self.tower.join(self.queries(query_B), self.documents(document_B), feature_BF)


class _Cache:
    """Tower outputs by text number or `document_keys`, computed when first asked for."""

    def __init__(self, tower: TextTower, vectors: Callable[[Tensor], Tensor]) -> None:
        self.tower, self.vectors = tower, vectors
        self.key_K = np.empty(0, dtype=np.int64)  # ascending, each with its row of `output`
        self.row_K = np.empty(0, dtype=np.int64)
        self.output_KW = np.empty((0, sum(tower.widths)), dtype=np.float32)

    def __call__(self, key_B: NDArray[Any]) -> tuple[Tensor, ...]:
        key_U, place_B = np.unique(key_B, return_inverse=True)
        at_U = np.searchsorted(self.key_K, key_U)
        new_U = np.append(self.key_K, -1)[at_U] != key_U
        if new_U.any():
            self._add(key_U[new_U], at_U[new_U])
            at_U = np.searchsorted(self.key_K, key_U)
        return torch.split(torch.from_numpy(self.output_KW[self.row_K[at_U[place_B]]]), self.tower.widths, 1)

    def _add(self, key_U: NDArray[Any], at_U: NDArray[Any]) -> None:
        known = len(self.key_K)
        if known + len(key_U) > len(self.output_KW):
            grown_KW = np.empty((2 * known + len(key_U), self.output_KW.shape[1]), dtype=np.float32)
            grown_KW[:known] = self.output_KW[:known]
            self.output_KW = grown_KW
        told = self.tower(self.vectors(torch.from_numpy(key_U)))
        self.output_KW[known : known + len(key_U)] = torch.cat(list(told[:2]), dim=1).numpy()
        self.row_K = np.insert(self.row_K, at_U, np.arange(known, known + len(key_U)))
        self.key_K = np.insert(self.key_K, at_U, key_U)
