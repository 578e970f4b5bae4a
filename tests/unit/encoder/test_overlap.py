"""What a GPU's backend does beside the CPU's: chunks, a thread that tokenises, one that writes, weights in bf16."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tritower import threads
from tritower.encoder import backends, embedding, models
from tritower.encoder.backends import TorchBackend
from tritower.encoder.buckets import Ragged, exact_length_batches
from tritower.encoder.cache import VectorCache, keys_of
from tritower.errors import ArtifactError

from tests.support import gpu

TEXTS = [f"{'senior ' * (n % 7)}{trade} wanted {n}" for n in range(60) for trade in ("nurse", "cook", "welder")]


def filled(folder: Path, backend: backends.Backend, model: object, **more: int) -> np.ndarray:
    cache = VectorCache(str(folder), models.dimension(model))
    found = embedding.fill(cache, TEXTS, model, backend, **({"segment_texts": 16} | more))
    assert found == (len(TEXTS), 0)
    out = np.empty((len(TEXTS), cache.dim), np.float16)
    cache.gather(keys_of(TEXTS), out, np.arange(len(TEXTS)))
    return out


def test_ragged_texts_are_the_rows_they_were_made_of() -> None:
    rows = [[5, 6, 7], [], [8], [9, 10, 11]]
    ragged = Ragged.of(rows)
    assert [row.tolist() for row in ragged] == rows and len(ragged) == 4
    assert ragged.stack(np.array([3, 0])).tolist() == [[9, 10, 11], [5, 6, 7]]
    assert len(Ragged.of([])) == 0 and exact_length_batches(Ragged.of([]).length_T, 16) == []


def test_tokens_are_those_of_the_tokeniser(tiny_model: Path) -> None:
    model = models.load(tiny_model)
    tokens, cut = backends.tokenise(model, [*TEXTS, "", "nurse " * 100])
    expected = model.tokenizer([*TEXTS, "", "nurse " * 100], truncation=True, max_length=32)["input_ids"]
    assert [row.tolist() for row in tokens] == expected and cut == 1


def test_chunks_hold_every_text_once_the_longest_first() -> None:
    length = np.array([3, 50, 4, 30, 30, 1, 2])
    chunks = embedding.chunks_of(length, 60)
    assert [chunk.tolist() for chunk in chunks] == [[1], [3, 4, 2, 0, 6], [5]]  # 50 | 80 and on to 119 | 120
    assert embedding.chunks_of(length, 0)[0].tolist() == list(range(7))  # a CPU's plan is that of all texts, as they come
    assert embedding.chunks_of(np.array([], np.int64), 60)[0].size == 0


def test_chunks_give_the_vectors_of_one_plan(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.load(tiny_model)
    one = filled(tmp_path / "one", TorchBackend(model, token_budget=64), model)
    monkeypatch.setattr(embedding, "_CHUNK", 4)
    length = np.array([len(text) for text in TEXTS])
    assert len(embedding.chunks_of(length, 4 * 64)) > 10
    fed_as_a_gpu = TorchBackend(model, token_budget=64)
    fed_as_a_gpu.apart = True
    many = filled(tmp_path / "many", fed_as_a_gpu, model)
    assert np.abs(one.astype(np.float32) - many.astype(np.float32)).max() <= 2**-12


def test_a_vector_that_is_not_finite_is_refused_although_a_thread_writes(tiny_model: Path, tmp_path: Path) -> None:
    model = models.load(tiny_model)
    with torch.no_grad():
        models.transformer_of(model).get_input_embeddings().weight.fill_(float("nan"))
    with pytest.raises(ArtifactError, match="vectors are not finite"):
        filled(tmp_path / "cache", TorchBackend(model), model)


def test_weights_in_bf16_give_nearly_the_vectors_of_fp32_and_leave_the_model_alone(tiny_model: Path) -> None:
    model = models.load(tiny_model)
    tokens, _ = backends.tokenise(model, TEXTS)
    exact = backends.encode_all(TorchBackend(model), tokens, 32)
    halves = TorchBackend(model, "bf16", half_weights=True)
    assert halves.name == "torch-bf16-weights"  # a cache of autocast's vectors is another cache
    found = backends.encode_all(halves, tokens, 32)
    assert found.dtype == np.float32
    assert (found * exact).sum(axis=1).min() > 0.9995
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    again = backends.encode_all(TorchBackend(model), tokens, 32)
    assert np.array_equal(exact, again)


def test_items_come_in_order_one_ahead_and_errors_in_their_place() -> None:
    made: list[int] = []

    def make(key: int) -> int:
        made.append(key)
        if key == 3:
            raise KeyError("three")
        return key * key

    items = threads.ahead(make, range(10))
    assert [next(items), next(items), next(items)] == [0, 1, 4]
    assert len(made) <= 5
    with pytest.raises(KeyError, match="three"):
        next(items)
    assert len(made) <= 6  # what was under way, and nothing after it
    stopped = threads.ahead(make, [4, 5, 6, 7, 8])
    next(stopped)
    stopped.close()
    assert made[-1] < 8


@gpu.needed
def test_a_gpu_s_vectors_are_those_of_the_cpu(tiny_model: Path, tmp_path: Path) -> None:
    cpu, card = (models.load(tiny_model, device) for device in ("cpu", "cuda:0"))
    expected = filled(tmp_path / "cpu", TorchBackend(cpu), cpu)
    exact = filled(tmp_path / "fp32", TorchBackend(card, token_budget=64), card)
    halves = [filled(tmp_path / f"bf16-{n}", TorchBackend(card, "bf16", 64), card) for n in range(2)]
    assert np.abs(exact - expected).max() < 2e-3
    assert (halves[0].astype(np.float32) * expected).sum(axis=1).min() > 0.999
    assert np.array_equal(*halves)
