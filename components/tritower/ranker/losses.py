"""The losses of a training.

Legend: B rows of a batch, Q distinct queries, J distinct documents, C occupation classes.
"""

import torch
from torch import Tensor
from torch.nn import functional

from tritower.ranker.batches import Batch


def click_loss(click_B: Tensor, skip_B: Tensor, clicked_B: Tensor) -> Tensor:
    """Binary cross-entropy, mean over the batch, from log probabilities of a click and of no click."""
    return -(clicked_B * click_B + (1 - clicked_B) * skip_B).mean()


def class_loss(query_QC: Tensor, document_JC: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of the documents' own classes plus that of the classes of the jobs clicked after each query.

    Each is a mean over what is known; a part without any adds 0.
    """
    clicked = torch.nonzero(_wanted(batch)).squeeze(1)
    wanted_RC = query_QC.index_select(0, batch.query_B[clicked])
    wanted = functional.nll_loss(wanted_RC, batch.class_B[clicked], reduction="sum") / max(1, len(clicked))
    return wanted + _offered(document_JC, batch)


def fixed_class_loss(query_QC: Tensor, document_JC: Tensor, batch: Batch) -> Tensor:
    """`class_loss` without a shape that depends on the clicks: a CUDA graph has one shape, and a GPU is not asked for it."""
    wanted_B = _wanted(batch)
    place_B = batch.query_B * query_QC.shape[1] + batch.class_B.clamp(min=0)
    log_B = query_QC.reshape(-1).index_select(0, place_B)
    wanted = -torch.where(wanted_B, log_B, 0.0).sum() / wanted_B.sum().clamp(min=1)
    return wanted + _offered(document_JC, batch)


def _wanted(batch: Batch) -> Tensor:
    # Half: what a distilled network learns from is the mean of a click and a probability.
    return (batch.clicked_B >= 0.5) & (batch.class_B >= 0)


def _offered(document_JC: Tensor, batch: Batch) -> Tensor:
    known = (batch.class_J >= 0).sum().clamp(min=1)
    return functional.nll_loss(document_JC, batch.class_J, ignore_index=-1, reduction="sum") / known
