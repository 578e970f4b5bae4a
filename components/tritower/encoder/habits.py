"""How training is fed to a device and read from it. The loss of a step is the same to rounding; what differs is who waits.

A CPU computes a step while Python waits. A GPU works on its own, and every look at a number of it (a loss, whether a mask hides
anything, a copy that is waited for) lets it stand idle until Python has launched the next kernels.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel

UNSEEN = "sdpa_unseen"
"""Name of an attention of our own: PyTorch's, whose mask is built without a look at what is in it."""


@dataclass(frozen=True, kw_only=True)
class Habits:
    """What a device is given at once, and how often it is asked."""

    read_every: int = 1
    """Steps between two looks at the loss, 1 or more. A loss that is not finite is found so many steps late at most."""

    together: int = 0
    """Tokens up to which queries and documents of a batch go through the encoder at once, padded to one length: half the
    launches for some padding. 0 for never."""

    attention: str = "eager"
    """Implementation of attention: `eager`, `sdpa` or UNSEEN."""


ON_CPU = Habits()
"""PyTorch's fused attention has a slow backward pass on CPUs for short texts (docs/experiments.md); padding is work."""

ON_GPU = Habits(read_every=16, together=32_768, attention=UNSEEN)
"""Reasoned on what was measured on an H100: a look at the loss in each step took 7 to 9 % of the time, and a step of six layers
waits for its launches until a batch has some ten thousands of tokens. The numbers themselves were not varied on a card."""


def of(device: torch.device) -> Habits:
    """What is faster on this kind of device."""
    return ON_GPU if device.type == "cuda" else ON_CPU


def attend(transformer: PreTrainedModel, habits: Habits) -> None:
    """Set the transformer's attention; one that has no fused attention keeps what it has."""
    if habits.attention == UNSEEN:
        if transformer.config._attn_implementation != "sdpa":
            return
        AttentionInterface.register(UNSEEN, ALL_ATTENTION_FUNCTIONS["sdpa"])
        AttentionMaskInterface.register(UNSEEN, _mask)
    transformer.set_attn_implementation(habits.attention)


def _mask(**settings: Any) -> Tensor | None:
    """transformers' mask for PyTorch's attention. To leave out one that hides nothing, it would have to wait for the GPU."""
    return sdpa_mask(**settings | {"allow_is_bidirectional_skip": False})
