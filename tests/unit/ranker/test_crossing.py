"""Cross layers and the listwise loss by hand."""

import math

import pytest
import torch
from tritower.ranker.crossing import CrossLayers
from tritower.ranker.listwise import softmax_loss


def test_cross_layers_start_as_the_identity():
    value = torch.randn(4, 3)
    torch.testing.assert_close(CrossLayers(3, layers=2, rank=2)(value), value)


def test_two_cross_layers_by_hand():
    cross = CrossLayers(2, layers=2, rank=1)
    with torch.no_grad():
        for down, up in zip(cross.down, cross.up, strict=True):
            down.weight.copy_(torch.tensor([[1.0, 1.0]]))
            up.weight.copy_(torch.tensor([[2.0], [0.0]]))
            up.bias.copy_(torch.tensor([0.0, 1.0]))
    # x0 = [1, 3]: V x0 = 4, U 4 + b = [8, 1] -> x1 = [1*8 + 1, 3*1 + 3] = [9, 6]
    # V x1 = 15, U 15 + b = [30, 1] -> x2 = [1*30 + 9, 3*1 + 6] = [39, 9]
    assert cross(torch.tensor([[1.0, 3.0]])).tolist() == [[39.0, 9.0]]


def test_softmax_loss_by_hand():
    logit_B = torch.log(torch.tensor([1.0, 2.0, 1.0, 5.0, 5.0, 7.0]))
    clicked_B = torch.tensor([0.0, 1.0, 1.0, 0.0, 0.0, 1.0])
    request_B = torch.tensor([4, 4, 4, 9, 9, 2])
    # search 4: shares 1/4, 1/2, 1/4, two clicks; search 9: no click, left out; search 2: one row, share 1
    expected = ((math.log(2) + math.log(4)) / 2 + 0.0) / 2
    assert float(softmax_loss(logit_B, clicked_B, request_B)) == pytest.approx(expected, rel=1e-6)


def test_softmax_loss_is_zero_without_clicks_and_finite_for_large_logits():
    logit_B, none = torch.tensor([500.0, -500.0], requires_grad=True), torch.zeros(2)
    assert softmax_loss(logit_B, none, torch.tensor([0, 0])).item() == 0.0
    loss = softmax_loss(logit_B, torch.tensor([0.0, 1.0]), torch.tensor([0, 0]))
    assert float(loss.detach()) == pytest.approx(1000.0)
    loss.backward()
    assert logit_B.grad.tolist() == [1.0, -1.0]
