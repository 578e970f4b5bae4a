"""A listwise loss beside the pointwise one.

Legend: B rows of a batch, G searches among them.
"""

import torch
from torch import Tensor


def softmax_loss(logit_B: Tensor, clicked_B: Tensor, request_B: Tensor) -> Tensor:
    """Cross-entropy between the clicks of a search and the softmax over its rows; mean over searches with a click.

    ListNet's top-one loss (Cao et al., ICML 2007) with the clicks as the target.

    Args:
        logit_B: log-odds or log probability of a click, position bias included.
        clicked_B: 1 = clicked.
        request_B: search of each row; rows of one search are adjacent.

    Returns:
        A scalar; 0 when nothing was clicked.
    """
    _, group_B, count_G = torch.unique_consecutive(request_B, return_inverse=True, return_counts=True)
    groups = len(count_G)
    top_G = logit_B.new_full((groups,), -torch.inf).scatter_reduce(0, group_B, logit_B.detach(), "amax")
    mass_G = logit_B.new_zeros(groups).index_add(0, group_B, (logit_B - top_G[group_B]).exp())
    log_share_B = logit_B - top_G[group_B] - mass_G.log()[group_B]
    clicks_G = clicked_B.new_zeros(groups).index_add(0, group_B, clicked_B)
    weight_B = clicked_B / clicks_G[group_B].clamp(min=1)
    return -(weight_B * log_share_B).sum() / (clicks_G > 0).sum().clamp(min=1)
