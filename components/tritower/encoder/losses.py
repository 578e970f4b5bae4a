"""Losses over a batch of distinct texts: sentence-transformers' own formulas on gathered vectors.

Legend: C clicks, K negatives per click, U distinct texts, D dimension.
"""

from collections.abc import Iterable

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    MultipleNegativesRankingLoss,
    TripletDistanceMetric,
    TripletLoss,
)
from torch import Tensor, nn


class ClickLoss(nn.Module):
    """Encodes each distinct text once, then applies triplet loss, ranking loss, or their sum.

    Triplet: the mean over all (query, clicked, not clicked) of max(0, d(q, c) - d(q, n) + margin) with d = 1 - cosine
    (Schroff et al., FaceNet, CVPR 2015). Ranking: cross-entropy of the clicked document against every other document of
    the batch and the click's own negatives (Henderson et al., 2017). Both are TripletLoss and MultipleNegativesRankingLoss
    of sentence-transformers, whose `compute_loss_from_embeddings` is called.

    Args:
        kind: `triplet`, `ranking` or `triplet+ranking`.
        margin: cosine distance by which a negative should lie further away, 0 to 2.
        scale: inverse temperature of the ranking loss.
        across: take the documents of all processes as negatives.
    """

    def __init__(self, model: SentenceTransformer, *, kind: str, margin: float, scale: float, across: bool = False) -> None:
        super().__init__()
        self.model = model
        self.kind = kind
        self.triplet = TripletLoss(model, TripletDistanceMetric.COSINE, margin)
        self.ranking = MultipleNegativesRankingLoss(model, scale=scale, gather_across_devices=across)

    def forward(self, features: Iterable[dict[str, Tensor]], label: Tensor) -> Tensor:
        """Mean loss of the batch; `features` are queries and documents, or both in one, `label` is the Collator's."""
        vectors = [self.model(dict(part))["sentence_embedding"].float() for part in features]
        query_UD, document_UD = vectors[0], vectors[-1]
        anchor_CD, positive_CD = query_UD[label[:, 0]], document_UD[label[:, 1]]
        negatives = [document_UD[label[:, k]] for k in range(2, label.shape[1])]
        loss: Tensor = anchor_CD.new_zeros(())
        if "triplet" in self.kind:
            repeated = [anchor_CD.repeat(len(negatives), 1), positive_CD.repeat(len(negatives), 1), torch.cat(negatives)]
            loss = loss + self.triplet.compute_loss_from_embeddings(repeated, label)
        if "ranking" in self.kind:
            loss = loss + self.ranking.compute_loss_from_embeddings([anchor_CD, positive_CD, *negatives], label)
        return loss
