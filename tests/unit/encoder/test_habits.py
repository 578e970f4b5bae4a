"""Training as a GPU is fed, on the CPU: the same losses and weights, and the same after a stop."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers.masking_utils import bidirectional_mask_function, sdpa_mask
from tritower import storage
from tritower.encoder import backends, devices, finetuning, habits, models, tables, training
from tritower.encoder.batching import Collator
from tritower.encoder.config import FinetuneConfig
from tritower.encoder.habits import ON_CPU, ON_GPU, UNSEEN, Habits
from tritower.encoder.losses import ClickLoss
from tritower.errors import NonFiniteLossError

from tests.support import gpu
from tests.unit.encoder.test_finetune import SETTINGS

TEXTS = ["nurse wanted", "night nurse, acme", "cook, globex", "senior welder, acme", "cook wanted"]
ROWS = [{"anchor": 0, "positive": 1, "negatives": [2, 3]}, {"anchor": 4, "positive": 2, "negatives": [1, 1]}]


def train(
    dataset: Path, tiny: Path, folder: Path, used: Habits | None, device: str = "cpu", **more: object
) -> tuple[dict[str, torch.Tensor], list[float], dict[str, object]]:
    """Weights, losses and facts of a training."""
    config = FinetuneConfig(model=str(tiny), **(SETTINGS | {"loss": "ranking"} | more))
    texts = tables.texts(dataset)
    model = models.load(tiny, device)
    clicks = finetuning.examples(dataset, config, texts, model)
    facts = training.train(model, clicks, texts, config, folder, habits=used)
    return {name: value.cpu() for name, value in model.state_dict().items()}, facts["losses"], facts


def from_the_first_checkpoint(folder: Path) -> None:
    _, *later = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    assert later
    for path in later:
        shutil.rmtree(path)


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("kind", ["triplet", "ranking"])
def test_queries_and_documents_at_once_have_the_loss_of_both_by_themselves(tiny_model: Path, kind: str) -> None:
    model = models.load(tiny_model)
    tokens = dict(enumerate(backends.tokenise(model, TEXTS)[0]))
    found = []
    for together in (0, 1000):
        batch = Collator(tokens, 0, together)(ROWS)
        names = ["text"] if together else ["anchor", "document"]
        parts = [{key: batch[f"{name}_{key}"] for key in ("input_ids", "attention_mask")} for name in names]
        assert sorted(batch) == sorted([f"{n}_{k}" for n in names for k in ("input_ids", "attention_mask")] + ["label"])
        loss = ClickLoss(model, kind=kind, margin=0.5, scale=20.0)(parts, batch["label"])
        model.zero_grad()
        loss.backward()
        found.append((loss.item(), [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    (apart, apart_gradients), (at_once, gradients) = found
    assert at_once == pytest.approx(apart, abs=1e-6)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(apart_gradients, gradients, strict=True))


def test_too_many_tokens_go_apart(tiny_model: Path) -> None:
    tokens = dict(enumerate(backends.tokenise(models.load(tiny_model), TEXTS)[0]))
    # 2 queries and 3 documents; the longest, "senior welder, acme" between its marks, has 6 tokens: 30 in all.
    assert "text_input_ids" in Collator(tokens, 0, 30)(ROWS)
    assert "text_input_ids" not in Collator(tokens, 0, 29)(ROWS)


def test_the_mask_is_built_without_a_look_at_it_and_hides_the_same(tiny_model: Path) -> None:
    model = models.load(tiny_model)
    padded = torch.tensor([[2, 7, 9, 3, 0, 0], [2, 8, 3, 0, 0, 0]])
    full = torch.tensor([[2, 7, 3], [2, 8, 3]])
    batches = [{"input_ids": ids, "attention_mask": (ids != 0).long()} for ids in (padded, full)]
    expected = [model(dict(batch))["sentence_embedding"] for batch in batches]
    transformer = models.transformer_of(model)
    assert transformer.config._attn_implementation == "sdpa"
    habits.attend(transformer, Habits(attention=UNSEEN))
    assert transformer.config._attn_implementation == UNSEEN
    for batch, vectors in zip(batches, expected, strict=True):
        assert torch.allclose(model(dict(batch))["sentence_embedding"], vectors, atol=1e-6)
    shape = {"batch_size": 2, "q_length": 3, "kv_length": 3, "attention_mask": torch.ones(2, 3, dtype=torch.bool)}
    allowed = {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": True}
    assert sdpa_mask(**shape, **allowed, mask_function=bidirectional_mask_function) is None
    hides_nothing = habits._mask(**shape, **allowed, mask_function=bidirectional_mask_function)
    assert hides_nothing is not None and bool(hides_nothing.all())
    transformer.set_attn_implementation("eager")
    habits.attend(transformer, Habits(attention=UNSEEN))  # a model without a fused attention keeps what it has
    assert transformer.config._attn_implementation == "eager"


def test_a_gpu_s_habits_change_no_loss_and_every_step_s_is_noted(dataset: Path, tiny_model: Path, tmp_path: Path) -> None:
    weights, losses, facts = train(dataset, tiny_model, tmp_path / "cpu", ON_CPU)
    other, read_later, facts_later = train(dataset, tiny_model, tmp_path / "gpu", ON_GPU)
    assert facts["steps"] == len(losses) == len(read_later) == facts_later["steps"] > ON_GPU.read_every
    assert np.allclose(losses, read_later, atol=1e-4)
    assert facts_later["loss"] == pytest.approx(facts["loss"], abs=1e-4)
    assert max(float((weights[name] - other[name]).abs().max()) for name in weights) < 2e-3


def test_a_stopped_run_goes_on_to_the_same_bits_and_losses(dataset: Path, tiny_model: Path, tmp_path: Path) -> None:
    """The checkpoint lies between two looks at the loss."""
    settings = {"dropout": 0.1, "checkpoint_steps": 12, "epochs": 3}
    whole, losses, facts = train(dataset, tiny_model, tmp_path / "kept", ON_GPU, **settings)
    assert facts["resumed_at"] == 0 and 12 % ON_GPU.read_every
    from_the_first_checkpoint(tmp_path / "kept")
    resumed, again, facts = train(dataset, tiny_model, tmp_path / "kept", ON_GPU, **settings)
    assert 0 < facts["resumed_at"] < facts["steps"]
    assert same(whole, resumed) and losses == again


def test_a_loss_that_is_not_finite_is_found_later_with_the_batch_it_was_of(
    dataset: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    forward = ClickLoss.forward

    def spoilt(self: ClickLoss, features: list[dict[str, torch.Tensor]], label: torch.Tensor) -> torch.Tensor:
        seen.append(label.clone())
        loss = forward(self, features, label)
        return loss * float("nan") if len(seen) == 3 else loss

    monkeypatch.setattr(ClickLoss, "forward", spoilt)
    with pytest.raises(NonFiniteLossError, match="the loss is nan at step 2"):
        train(dataset, tiny_model, tmp_path / "kept", Habits(read_every=5), checkpoint_steps=4, epochs=8)
    assert len(seen) == 4  # not read_every: the checkpoint after the fourth step looks first
    saved = load_file(tmp_path / "kept" / "not-finite-2.safetensors")
    assert torch.equal(saved["label"], seen[2])
    assert not list((tmp_path / "kept").glob("checkpoint-*/complete.json"))


def test_the_trainer_keeps_to_one_gpu_a_process(tmp_path: Path) -> None:
    settings = {"clicks": 64, "sampler": None, "world": 1, "habits": ON_GPU}
    arguments = training._arguments(FinetuneConfig(precision="fp32"), tmp_path, torch.device("cuda", 0), **settings)
    assert arguments.n_gpu == 1 and arguments.train_batch_size == 64


@gpu.needed
def test_the_same_seed_gives_the_same_bits_on_a_gpu_stopped_or_not(dataset: Path, tiny_model: Path, tmp_path: Path) -> None:
    devices.make_ready(torch.device("cuda", 0))
    settings = {"dropout": 0.1, "checkpoint_steps": 12, "epochs": 3, "precision": "auto", "device": "cuda:0"}
    whole, losses, _ = train(dataset, tiny_model, tmp_path / "one", None, **settings)
    other, losses_again, _ = train(dataset, tiny_model, tmp_path / "two", None, **settings)
    assert same(whole, other) and losses == losses_again
    from_the_first_checkpoint(tmp_path / "one")
    resumed, _, facts = train(dataset, tiny_model, tmp_path / "one", None, **settings)
    assert facts["resumed_at"] > 0 and same(whole, resumed)
    state = storage.read_json(next((tmp_path / "one").glob("checkpoint-*/trainer_state.json")))
    assert [entry["loss"] for entry in state["log_history"] if "loss" in entry] == losses[: state["global_step"]]
