"""AdamW over all weights of a network in one buffer: a step is a few passes over it, not dozens of small operations.

Legend: P weights of the network, in the order of the parameter groups.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tritower.ranker.config import OptimiserConfig
from tritower.ranker.network import ClickModel


class FlatAdamW:
    """Clips the gradients, steps, and keeps the moving average of the weights.

    The network's parameters become views of `weight_P`: writing to it loads weights into the network.

    Args:
        model: on its device; all of its state is parameters.
        config: the knobs.
        all_reduce_mean: puts the mean over all processes in the place of the gradients (P,).
    """

    def __init__(
        self, model: ClickModel, config: OptimiserConfig, all_reduce_mean: Callable[[Tensor], None] = lambda _: None
    ) -> None:
        assert not list(model.buffers())
        groups = parameter_groups(model, config)
        self.config, self.all_reduce_mean = config, all_reduce_mean
        self.parameters: list[nn.Parameter] = [p for group in groups for p in group["params"]]
        self.weight_P = torch.cat([p.detach().reshape(-1) for p in self.parameters])
        self.gradient_P = torch.zeros_like(self.weight_P)
        self.ema_P = self.weight_P.clone() if config.ema_decay else None
        start = 0
        for group in groups:
            first = start
            for p in group["params"]:
                p.data = self.weight_P[start : start + p.numel()].view_as(p)
                start += p.numel()
            whole = nn.Parameter(self.weight_P[first:start])
            whole.grad = self.gradient_P[first:start]
            group["params"] = [whole]
        self.adamw = torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)

    def step(self, share: float) -> None:
        """One step at a `share` of the peak learning rates, from the parameters' gradients, which are dropped."""
        self.collect()
        self.all_reduce_mean(self.gradient_P)
        self.apply(share)

    def collect(self) -> None:
        """Put the parameters' gradients into `gradient_P`, and drop them."""
        # A parameter that took no part has no gradient.
        parts = [p.grad.reshape(-1) if p.grad is not None else p.new_zeros(p.numel()) for p in self.parameters]
        torch.cat(parts, out=self.gradient_P)
        for p in self.parameters:
            p.grad = None

    def apply(self, share: float | Tensor) -> None:
        """One step from `gradient_P`; a share on the device is not read."""
        if self.config.clip_norm:
            norm = self.gradient_P.norm()
            self.gradient_P.mul_((self.config.clip_norm / (norm + 1e-6)).clamp(max=1.0))
        for group in self.adamw.param_groups:
            group["lr"] = group["peak"] * share
            group["capturable"] = self.weight_P.is_cuda and torch.cuda.is_current_stream_capturing()
        self.adamw.step()
        if self.ema_P is not None:
            self.ema_P.lerp_(self.weight_P, 1 - self.config.ema_decay)

    def rate(self, share: float) -> float:
        """The learning rate of the matrices at a share of the peak."""
        return float(self.adamw.param_groups[0]["peak"] * share)

    def kept(self) -> Tensor:
        """The weights to validate and keep: the moving average where there is one. A view, not a copy."""
        return self.weight_P if self.ema_P is None else self.ema_P

    def state(self) -> dict[str, Tensor]:
        """All tensors that `load` needs to go on identically."""
        tensors = {"weight": self.weight_P}
        if self.ema_P is not None:
            tensors["ema"] = self.ema_P
        for number, entries in self.adamw.state_dict()["state"].items():
            tensors |= {f"moments/{number}/{name}": value for name, value in entries.items()}
        return tensors

    def saved(self) -> dict[str, Tensor]:
        """A copy of `state`."""
        return {name: value.clone() for name, value in self.state().items()}

    def put_back(self, saved: dict[str, Tensor]) -> None:
        """Go on from what `saved` gave, in the tensors that there are: a CUDA graph knows no others. Gradients are dropped."""
        for p in self.parameters:
            p.grad = None
        for name, value in self.state().items():
            value.copy_(saved[name]) if name in saved else value.zero_()

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        self.weight_P.copy_(tensors["weight"])
        if self.ema_P is not None:
            self.ema_P.copy_(tensors["ema"])
        moments: dict[int, dict[str, Tensor]] = {}
        for path, value in tensors.items():
            if path.startswith("moments/"):
                _, number, name = path.split("/")
                moments.setdefault(int(number), {})[name] = value
        self.adamw.load_state_dict({"state": moments, "param_groups": self.adamw.state_dict()["param_groups"]})


def parameter_groups(model: ClickModel, config: OptimiserConfig) -> list[dict[str, Any]]:
    """Matrices with weight decay, vectors without, position weights without and at their own rate; `peak` is the peak rate."""
    # Decay would pull the relatedness of a class with itself towards 0, where nothing is related.
    decayed = {name: p.ndim > 1 and not name.endswith("relatedness_CC") for name, p in model.relevance.named_parameters()}
    matrices = [p for name, p in model.relevance.named_parameters() if decayed[name]]
    vectors = [p for name, p in model.relevance.named_parameters() if not decayed[name]]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": config.weight_decay, "peak": config.learning_rate},
        {"params": vectors, "weight_decay": 0.0, "peak": config.learning_rate},
    ]
    if model.bias is not None:
        peak = config.learning_rate * config.position_rate
        groups.append({"params": list(model.bias.parameters()), "weight_decay": 0.0, "peak": peak})
    return groups


def lr_factor(step: int, steps: int, warmup_ratio: float) -> float:
    """Learning rate of a step as a share of the peak: linear rise, then half a cosine down to 0."""
    warmup = int(steps * warmup_ratio)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
