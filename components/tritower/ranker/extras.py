"""An optional input of the interaction tower that is no plain feature: the user's past clicks.

Legend: B rows, U distinct texts of past clicks, D width of a text embedding, H past clicks of a row, A width of the attention.
"""

import math

import torch
from torch import Tensor, nn


class PastClicks(nn.Module):
    """Attention of a document over the titles its reader clicked before (deep interest network, Zhou et al., KDD 2018).

    One more key, learned, lets a document attend to nothing; it is all there is for a user without clicks.

    Args:
        dim: width of a text embedding.
        width_document: width of the document tower's output.
        width: of queries, keys and values.
    """

    def __init__(self, dim: int, width_document: int, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width_document, width)
        self.key_value = nn.Linear(dim, 2 * width)
        self.nothing = nn.Parameter(torch.zeros(2 * width))

    def forward(self, document_BE: Tensor, past_UD: Tensor, past_BH: Tensor) -> Tensor:
        """What the past says of the document: the attended value and its product with the query (B, 2 x width).

        Args:
            document_BE: output of the document tower.
            past_UD: embeddings of the distinct titles.
            past_BH: row of `past_UD` for each past click; -1 = none.
        """
        table_UA = torch.cat([self.nothing[None], self.key_value(past_UD).to(self.nothing.dtype)])
        slots_BH = torch.cat([torch.zeros_like(past_BH[:, :1]), past_BH + 1], dim=1)
        key_BHA, value_BHA = table_UA[slots_BH].chunk(2, dim=2)
        query_BA = self.query(document_BE).to(key_BHA.dtype)
        logit_BH = (key_BHA * query_BA[:, None]).sum(dim=2) / math.sqrt(query_BA.shape[1])
        absent_BH = slots_BH == 0
        absent_BH[:, 0] = False
        share_BH = logit_BH.masked_fill(absent_BH, -torch.inf).softmax(dim=1)
        value_BA = (share_BH[:, :, None] * value_BHA).sum(dim=1)
        return torch.cat([value_BA, value_BA * query_BA], dim=1)
