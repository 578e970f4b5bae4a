"""Which way a training takes its steps."""

import logging
from typing import Any, Protocol

from tritower.ranker.batches import Shares, Source
from tritower.ranker.config import RankerConfig
from tritower.ranker.eager import EagerSteps
from tritower.ranker.network import ClickModel
from tritower.ranker.optimiser import FlatAdamW
from tritower.ranker.process_group import ProcessGroup
from tritower.ranker.tabled import TabledSteps

logger = logging.getLogger(__name__)
COMPILE_PAYS = 100_000
"""Steps of one member from which the compiled loss pays: it saves .47 ms of a graph's step at 2,048 rows and .86 ms at 16,384,
and is taken to need a minute to compile (docs/decisions/0033)."""


class Steps(Protocol):
    """What a training asks of its steps."""

    every: int
    """Steps after which their losses have to be read."""

    def take(self, step: int) -> None:
        """Take a step; steps come in order."""

    def losses(self, first: int, end: int) -> list[float]:
        """The losses of steps `first` to `end` - 1, the last ones taken."""

    def close(self) -> None:
        """End what runs beside the steps."""


def chosen(
    config: RankerConfig,
    model: ClickModel,
    optimiser: FlatAdamW,
    source: Source,
    shares: Shares,
    *,
    steps: int,
    bf16: bool,
    group: ProcessGroup,
) -> Steps:
    """The steps of a training, as `launch.loop` wants them or, where that cannot be, as they can; a line says why.

    Args: see `EagerSteps` and `TabledSteps`.
    """
    on_gpu = source.device.type == "cuda"
    loop = config.launch.loop
    if loop == "auto":
        loop = "eager" if not on_gpu else "compiled" if steps >= COMPILE_PAYS else "graph"
    if loop != "eager" and not source.embedded:
        logger.info("steps are taken one by one: the embeddings do not fit on the device")
        loop = "eager"
    if loop in ("graph", "compiled") and not on_gpu:
        logger.info("steps are taken from tables without a graph: there is no GPU")
    common: dict[str, Any] = {"config": config, "steps": steps, "bf16": bf16}
    if loop == "eager":
        return EagerSteps(model, optimiser, source, shares, **common)
    graph = on_gpu and loop != "tables"
    return TabledSteps(model, optimiser, source, shares, group=group, graph=graph, compiled=loop == "compiled", **common)
