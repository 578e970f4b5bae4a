"""Dropout: shares, scale, gradient, determinism by seed."""

import pytest
import torch
from tritower.ranker.dropout import Dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_share_and_scale(share: float, dtype: torch.dtype):
    torch.manual_seed(0)
    out = Dropout(share)(torch.ones(999, 101, dtype=dtype))
    dropped = (out == 0).float().mean().item()
    assert dropped == pytest.approx(round(share * 256) / 256, abs=0.005)  # 5 standard deviations
    assert out.float().mean().item() == pytest.approx(1.0, abs=0.01)
    assert len(out.unique()) == 2


def test_every_byte_of_a_word_drops_alike():
    torch.manual_seed(1)
    kept = (Dropout(0.5)(torch.ones(20_000, 8)) != 0).float().mean(dim=0)
    assert kept.sub(0.5).abs().max() < 0.02


def test_the_gradient_is_the_mask():
    value = torch.ones(50, requires_grad=True)
    torch.manual_seed(2)
    out = Dropout(0.3)(value)
    out.sum().backward()
    torch.testing.assert_close(value.grad, out.detach())


def test_the_same_seed_drops_the_same_and_evaluation_nothing():
    layer, value = Dropout(0.3), torch.ones(100)
    draws = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        draws.append(layer(value))
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert layer.eval()(value) is value
