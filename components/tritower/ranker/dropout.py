"""Dropout that is cheap on a CPU."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Dropout(nn.Module):
    """Zeroes a share of the values in training and scales the rest; the share is rounded to 1/256.

    On a CPU torch draws one random number per value, a quarter of a training step of this network. Here one 64-bit number
    serves eight values. On other devices torch's own dropout is used.

    Args:
        share: of the values to drop, in [0, 1).
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.threshold = round(share * 256)

    def forward(self, value: Tensor) -> Tensor:
        """`value` of any shape, or a copy with dropped values."""
        if not self.training or not self.threshold:
            return value
        if value.device.type != "cpu":
            return functional.dropout(value, self.share)
        words = torch.empty((value.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
        byte = words.view(torch.uint8)[: value.numel()].view(value.shape)
        keep = torch.ge(byte, self.threshold, out=torch.empty_like(value, requires_grad=False))
        return value * keep.mul_(256 / (256 - self.threshold))

    def extra_repr(self) -> str:
        """The share, for printing a network."""
        return f"share={self.share}"
