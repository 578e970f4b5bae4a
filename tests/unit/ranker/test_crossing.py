"""Cross layers by hand."""

import torch
from tritower.ranker.crossing import CrossLayers


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
