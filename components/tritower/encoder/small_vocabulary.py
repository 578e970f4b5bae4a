"""Training only the word embeddings that the training texts use.

A token that never occurs gets no gradient, and AdamW without weight decay leaves it as it is. Cutting the embedding table down
to the tokens that occur therefore changes nothing in the result, and saves most of what a step spends outside the transformer:
zeroing, clipping, updating and exchanging gradients of a table that is half of a small model.
"""

from collections.abc import Iterable
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers import SentenceTransformer
from torch import nn

from tritower.encoder.models import transformer_of


class SmallVocabulary:
    """A model's embedding table cut down to some token ids, and put back.

    Args:
        model: changed in place; call `restore` before it is saved.
        tokens: texts as token ids of the full vocabulary.
        pad: the padding token's id; always kept.
    """

    def __init__(self, model: SentenceTransformer, tokens: Iterable[npt.NDArray[np.int32]], pad: int) -> None:
        self._transformer = transformer_of(model)
        self._full = cast(nn.Embedding, self._transformer.get_input_embeddings())
        self.kept = np.unique(np.concatenate([np.asarray([pad], np.int32), *tokens]))
        self.pad = int(np.searchsorted(self.kept, pad))
        small = nn.Embedding(len(self.kept), self._full.embedding_dim, padding_idx=self.pad, dtype=self._full.weight.dtype)
        with torch.no_grad():
            small.weight.copy_(self._full.weight[torch.from_numpy(self.kept).long()])
        self._transformer.set_input_embeddings(small.to(self._full.weight.device))

    def translate(self, tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Token ids of the full vocabulary as ids of the small one."""
        return np.searchsorted(self.kept, tokens).astype(np.int32)

    def restore(self) -> None:
        """Write the trained rows into the full table and put it back."""
        small = cast(nn.Embedding, self._transformer.get_input_embeddings())
        with torch.no_grad():
            self._full.weight[torch.from_numpy(self.kept).long()] = small.weight.to(self._full.weight)
        self._transformer.set_input_embeddings(self._full)
