"""The optimiser: schedule, parameter groups, and the same steps as torch's own pieces one by one."""

import math
from pathlib import Path

import pytest
import torch
from tritower.ranker import checkpoint, optimiser
from tritower.ranker.config import NetworkConfig, OptimiserConfig, RankerConfig
from tritower.ranker.network import ClickModel
from tritower.ranker.optimiser import FlatAdamW


def test_the_rate_rises_then_falls_by_half_a_cosine():
    shares = [optimiser.lr_factor(step, 12, warmup_ratio=0.34) for step in range(12)]  # 4 steps of warm-up
    assert shares[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert shares[8] == pytest.approx(0.5)
    assert shares[11] == pytest.approx(0.5 * (1 + math.cos(math.pi * 7 / 8)))
    assert optimiser.lr_factor(0, 10, warmup_ratio=0.0) == 1.0


def test_position_weights_have_their_own_rate_and_no_decay():
    config = RankerConfig(
        network=NetworkConfig(descriptions=False),
        optimiser=OptimiserConfig(learning_rate=0.01, position_rate=20.0, weight_decay=0.3),
    )
    model = ClickModel(config.network, dim=4, features=2)
    matrices, vectors, positions = optimiser.parameter_groups(model, config.optimiser)
    assert (positions["peak"], positions["weight_decay"]) == (0.2, 0.0)
    assert positions["params"][0] is model.bias.weight
    assert (matrices["peak"], matrices["weight_decay"], vectors["weight_decay"]) == (0.01, 0.3, 0.0)
    assert sum(len(group["params"]) for group in (matrices, vectors, positions)) == len(list(model.parameters()))


SMALL = RankerConfig(
    network=NetworkConfig(
        descriptions=False, query_tower=(8,), document_tower=(8,), interaction_tower=(8,), head=(8,), occupation_classes=3
    ),
    optimiser=OptimiserConfig(ema_decay=0.9, clip_norm=0.05, weight_decay=0.1, learning_rate=0.01),
)


def fresh(seed: int) -> ClickModel:
    torch.manual_seed(seed)
    return ClickModel(SMALL.network, dim=4, features=2)


def backward(model: ClickModel, seed: int) -> None:
    """Gradients of some loss over six rows."""
    random = torch.Generator().manual_seed(seed)
    width = model.relevance.document_tower.tower[0].in_features
    query_QD, document_JD, feature_BF = (torch.randn(6, size, generator=random) for size in (4, width, 2))
    index = torch.arange(6)
    said = model(query_QD, document_JD, index, index, feature_BF, index)
    (said.click_B.sum() + said.query_QC.square().sum() + said.document_JC.square().sum()).backward()


def test_steps_are_those_of_clipping_adamw_and_an_average_parameter_by_parameter():
    model, plain = fresh(1), fresh(1)
    flat = FlatAdamW(model, SMALL.optimiser)
    groups = optimiser.parameter_groups(plain, SMALL.optimiser)
    adamw = torch.optim.AdamW(groups, lr=SMALL.optimiser.learning_rate)
    average = [p.detach().clone() for p in plain.parameters()]
    for step in range(5):
        backward(model, step)
        backward(plain, step)
        norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), SMALL.optimiser.clip_norm)
        assert norm > SMALL.optimiser.clip_norm
        for group in adamw.param_groups:
            group["lr"] = group["peak"] * 0.5
        adamw.step()
        adamw.zero_grad()
        for mean, p in zip(average, plain.parameters(), strict=True):
            mean.lerp_(p.detach(), 1 - SMALL.optimiser.ema_decay)
        flat.step(0.5)
        assert flat.rate(0.5) == flat.adamw.param_groups[0]["lr"] == 0.5 * SMALL.optimiser.learning_rate
        assert all(p.grad is None for p in model.parameters())
    for (name, p), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p, other, rtol=1e-5, atol=1e-6, msg=name)
    flat.weight_P.copy_(flat.kept())
    for (name, p), mean in zip(model.named_parameters(), average, strict=True):
        torch.testing.assert_close(p.detach(), mean, rtol=1e-5, atol=1e-6, msg=name)


def test_a_parameter_without_a_gradient_counts_as_one_with_zeros():
    model, other = fresh(1), fresh(1)
    for network, missing in ((model, True), (other, False)):
        flat = FlatAdamW(network, SMALL.optimiser)
        backward(network, 0)
        assert network.bias is not None
        network.bias.weight.grad = None if missing else torch.zeros_like(network.bias.weight)
        flat.step(1.0)
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)


def test_training_goes_on_identically_from_what_was_saved(tmp_path: Path):
    model, other = fresh(1), fresh(2)
    flat, second = FlatAdamW(model, SMALL.optimiser), FlatAdamW(other, SMALL.optimiser)
    backward(model, 0)
    flat.step(1.0)
    checkpoint.save(str(tmp_path), 0, flat.state() | {"best": torch.tensor([1.5])}, {})
    backward(model, 1)
    flat.step(0.5)

    found = checkpoint.load(str(tmp_path))
    assert found is not None and found[0]["best"].item() == pytest.approx(1.5)
    second.load(found[0])
    backward(other, 1)
    second.step(0.5)
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
    assert torch.equal(flat.kept(), second.kept())
