"""From token ids to normalised vectors.

Legend: B texts in a batch, L tokens per text, D dimension of a vector.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers import SentenceTransformer

from tritower.encoder.buckets import exact_length_batches
from tritower.encoder.models import dimension

Vectors = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int32]


def tokenise(model: SentenceTransformer, texts: Sequence[str]) -> tuple[list[Tokens], int]:
    """Token ids of each text with special tokens, cut at the model's maximal length, and how many texts were cut.

    An empty text has its special tokens only.
    """
    tokenizer = model.tokenizer
    prompt = model.prompts.get(model.default_prompt_name or "", "")
    encodings = tokenizer(
        [prompt + text for text in texts] if prompt else list(texts),
        truncation=True,
        max_length=model.max_seq_length,
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    cut = sum(1 for encoding in encodings.encodings if encoding.overflowing)
    return [np.asarray(ids, np.int32) for ids in encodings["input_ids"]], cut


class TorchEncoder:
    """A sentence-transformers model run by PyTorch, in fp32 or under bf16 autocast.

    Args:
        model: in evaluation mode, on its device.
        precision: `fp32` or `bf16`.
    """

    def __init__(self, model: SentenceTransformer, precision: str = "fp32") -> None:
        self.model = model
        self.precision = precision
        self.name = f"torch-{precision}"

    @torch.inference_mode()
    def encode(self, token_BL: npt.NDArray[np.int64]) -> Vectors:
        """L2-normalised vectors (B, D) of texts that all have L tokens."""
        ids_BL = torch.from_numpy(token_BL).to(self.model.device)
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            out = self.model({"input_ids": ids_BL, "attention_mask": torch.ones_like(ids_BL)})
        vector_BD = torch.nn.functional.normalize(out["sentence_embedding"].float(), dim=-1)
        result: Vectors = vector_BD.cpu().numpy()
        return result


def encode_all(backend: "TorchEncoder", texts: Sequence[str], token_budget: int = 2048) -> Vectors:
    """Vectors (T, D) of many texts, in the order given."""
    tokens, _ = tokenise(backend.model, texts)
    vector_TD: Vectors = np.empty((len(tokens), dimension(backend.model)), np.float32)
    for batch in exact_length_batches(np.fromiter(map(len, tokens), np.int32, len(tokens)), token_budget):
        vector_TD[batch] = backend.encode(np.stack([tokens[i] for i in batch]).astype(np.int64))
    return vector_TD
