"""Bulk scoring: each distinct text goes through its tower once, rows through the interaction tower and the head.

Legend: N rows, M members, T texts, E tower width, F features.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tritower.ranker.artifact import Artifact
from tritower.ranker.batches import distinct_past
from tritower.ranker.config import RankerConfig
from tritower.ranker.network import TripleTower

_CHUNK = 8192


class Scorer:
    """Scores rows with a trained model; tower outputs are kept between calls.

    Args:
        artifact: the model.
        matrix_TD: text embeddings of the model's encoder.
    """

    def __init__(self, artifact: Artifact, matrix_TD: NDArray[Any]) -> None:
        self.normaliser = artifact.normaliser
        self.matrix_TD = matrix_TD
        self.members = [_Member(member.relevance, matrix_TD, artifact.config) for member in artifact.members]

    def score(
        self,
        query_N: NDArray[Any],
        document_N: NDArray[Any],
        feature_NF: NDArray[np.float32],
        key_NC: NDArray[np.int32],
        past_NH: NDArray[np.int32],
    ) -> NDArray[np.float32]:
        """Probability of a click at the top position (N,).

        Args:
            query_N: text numbers of the queries.
            document_N: text numbers of the documents.
            feature_NF: raw features, NaN = missing.
            key_NC: company and occupation numbers, -1 = unknown.
            past_NH: text numbers of past clicks, -1 = none.
        """
        feature_NF = self.normaliser.apply(feature_NF)
        out_N = np.empty(len(query_N), dtype=np.float32)
        for start in range(0, len(query_N), _CHUNK):
            part = slice(start, start + _CHUNK)
            past_U, past_BH = distinct_past(past_NH[part])
            inputs = (
                torch.from_numpy(feature_NF[part]),
                torch.from_numpy(key_NC[part]).long(),
                torch.from_numpy(self.matrix_TD[past_U]).float(),
                torch.from_numpy(past_BH),
            )
            with torch.inference_mode():
                score_MB = [torch.sigmoid(member(query_N[part], document_N[part], inputs)) for member in self.members]
                out_N[part] = torch.stack(score_MB).mean(0).numpy()
        return out_N


class _Member:
    """One network with its tower outputs."""

    def __init__(self, tower: TripleTower, matrix_TD: NDArray[Any], config: RankerConfig) -> None:
        self.tower = tower
        self.queries = _Cache(tower.query_tower, matrix_TD, tower.split[1] + config.occupation_classes)
        self.documents = _Cache(tower.document_tower, matrix_TD, tower.split[1] + config.occupation_classes)

    def __call__(self, query_B: NDArray[Any], document_B: NDArray[Any], inputs: tuple[Tensor, ...]) -> Tensor:
        return self.tower.join(self.queries(query_B), self.documents(document_B), *inputs)


class _Cache:
    """Tower outputs by text number, computed when first asked for; untouched rows take no memory."""

    def __init__(self, tower: Callable[[Tensor], Tensor] | nn.Module, matrix_TD: NDArray[Any], width: int) -> None:
        self.tower, self.matrix_TD = tower, matrix_TD
        self.output_TE = np.zeros((len(matrix_TD), width), dtype=np.float32)
        self.known_T = np.zeros(len(matrix_TD), dtype=np.bool_)

    def __call__(self, text_B: NDArray[Any]) -> Tensor:
        new = np.unique(text_B[~self.known_T[text_B]])
        if len(new):
            self.output_TE[new] = self.tower(torch.from_numpy(self.matrix_TD[new]).float())[0].numpy()
            self.known_T[new] = True
        return torch.from_numpy(self.output_TE[text_B])
