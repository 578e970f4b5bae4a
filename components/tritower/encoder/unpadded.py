"""A sentence-transformers model for batches without padding: all texts of a batch are equally long, so there is no mask.

Legend: B texts in a batch, L tokens of each, D dimension of a vector.
"""

import copy

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from tritower.encoder.models import transformer_of


class Unpadded(nn.Module):
    """`input_ids` (B, L) int64 in, L2-normalised vectors (B, D) float32 out; of the model it takes modules, not copies."""

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__()
        self.transformer: nn.Module = transformer_of(model)
        self.rest = nn.ModuleList(list(model.children())[1:])

    def forward(self, input_ids: Tensor) -> Tensor:
        """See the class."""
        features = {
            "token_embeddings": self._tokens(input_ids),
            "attention_mask": torch.ones_like(input_ids),
        }
        for module in self.rest:
            features = module(features)
        return nn.functional.normalize(features["sentence_embedding"], dim=-1)

    def _tokens(self, input_ids: Tensor) -> Tensor:
        tokens_BLD: Tensor = self.transformer(input_ids=input_ids)[0]
        return tokens_BLD


class HalfWeights(Unpadded):
    """The same with a copy of the transformer whose weights are bf16; pooling and what follows are in float32.

    Autocast would cast every weight again for each batch, which is half of a short batch's launches on a GPU.
    """

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__(model)
        self.transformer = copy.deepcopy(self.transformer).to(torch.bfloat16)

    def _tokens(self, input_ids: Tensor) -> Tensor:
        return super()._tokens(input_ids).float()
