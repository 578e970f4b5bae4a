"""Cross layers before the interaction tower.

Legend: B rows, F input features (values and masks).
"""

from torch import Tensor, nn


class CrossLayers(nn.Module):
    """Low-rank cross network: x <- x0 * (U V x + b) + x, so that layer n holds products of n + 1 features.

    DCN V2 (Wang et al., WWW 2021) with factorised matrices. U and b start at 0, which is the identity.

    Args:
        width: of the input.
        layers: number of cross layers.
        rank: of each layer's matrix.
    """

    def __init__(self, width: int, layers: int, rank: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(nn.Linear(width, rank, bias=False) for _ in range(layers))
        self.up = nn.ModuleList(_zero(nn.Linear(rank, width)) for _ in range(layers))

    def forward(self, input_BF: Tensor) -> Tensor:
        """Crossed features (B, F)."""
        crossed_BF = input_BF
        for down, up in zip(self.down, self.up, strict=True):
            crossed_BF = input_BF * up(down(crossed_BF)) + crossed_BF
        return crossed_BF


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
