"""An encoder's weights as `transformer.py` reads them; needs torch.

Legend: see `transformer.py`.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from torch import nn
from transformers import BertModel

from tritower import storage
from tritower.encoder import transformer
from tritower.products import LANES, panels

Floats = NDArray[np.float32]
_NORM = ("weight", "bias")
_LARGEST = float(np.finfo(np.float16).max)


def write(model: SentenceTransformer, folder: Path) -> bool:
    """Write the files, where the model is one that `transformer.py` computes: BERT with mean pooling.

    Args:
        model: the encoder.
        folder: the part `encoder` of a bundle.

    Returns:
        Whether it is.
    """
    bert = _bert(model)
    if bert is None:
        return False
    half, single = _Numbers(np.float16), _Numbers(np.float32)
    about, own = bert.config, {name: tensor.detach().float().cpu().numpy() for name, tensor in bert.state_dict().items()}
    first = "embeddings."
    half.add(own[f"{first}word_embeddings.weight"])
    single.add(own[f"{first}position_embeddings.weight"] + own[f"{first}token_type_embeddings.weight"][0])
    single.add(*(own[f"{first}LayerNorm.{part}"] for part in _NORM))
    for number in range(about.num_hidden_layers):
        layer = f"encoder.layer.{number}."
        three = [f"{layer}attention.self.{name}" for name in ("query", "key", "value")]
        half.add(panels(np.concatenate([own[f"{name}.weight"].T for name in three], axis=1)))
        single.add(*(own[f"{name}.bias"] for name in three))
        for name, is_normalised in (("attention.output.", True), ("intermediate.", False), ("output.", True)):
            half.add(panels(own[f"{layer}{name}dense.weight"].T))
            single.add(own[f"{layer}{name}dense.bias"])
            single.add(*(own[f"{layer}{name}LayerNorm.{part}"] for part in _NORM if is_normalised))
    if not half.fits:
        return False
    facts = {
        "layers": about.num_hidden_layers, "heads": about.num_attention_heads, "dim": about.hidden_size,
        "inner": about.intermediate_size, "words": about.vocab_size, "positions": about.max_position_embeddings,
        "epsilon": about.layer_norm_eps,
    }  # fmt: skip
    np.save(folder / transformer.HALVES, half.all().view(np.uint16))
    np.save(folder / transformer.SINGLES, single.all())
    storage.write_json(folder / transformer.FACTS, facts)
    return True


def remove(folder: Path) -> None:
    """Take back what `write` wrote."""
    for name in (transformer.FACTS, transformer.HALVES, transformer.SINGLES):
        (folder / name).unlink()


class _Numbers:
    """Arrays, one after the other. `fits`: no number was too large for their type."""

    def __init__(self, dtype: type) -> None:
        self._dtype, self._parts, self.fits = dtype, list[NDArray[Any]](), True

    def add(self, *arrays: Floats) -> None:
        """As they lie in memory."""
        for array in arrays:
            self.fits &= self._dtype is np.float32 or float(np.abs(array).max()) <= _LARGEST
            with np.errstate(over="ignore"):  # it then does not fit
                self._parts.append(array.astype(self._dtype).ravel())

    def all(self) -> NDArray[Any]:
        """All numbers."""
        return np.concatenate(self._parts)


def _bert(model: SentenceTransformer) -> BertModel | None:
    """The BERT of a model that is one, with mean pooling and nothing else behind it; None of any other."""
    chain = list(model.children())
    first, rest = chain[0], chain[1:]
    bert = model.transformers_model
    if not isinstance(first, Transformer) or not isinstance(bert, BertModel) or not rest or not _takes_the_mean(rest[0]):
        return None
    about = bert.config
    known = about.hidden_act == "gelu" and not about.is_decoder
    whole = not (about.hidden_size % LANES or about.intermediate_size % LANES)
    return bert if known and whole and all(isinstance(one, Normalize) for one in rest[1:]) else None


def _takes_the_mean(module: nn.Module) -> bool:
    return isinstance(module, Pooling) and module.pooling_mode in ("mean", ("mean",), ["mean"]) and module.include_prompt
