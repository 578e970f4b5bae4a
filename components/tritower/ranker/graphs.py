"""A function as a CUDA graph: what it launches is recorded once and replayed by one call."""

from collections.abc import Callable, Sequence

import torch

_WARM_UP = 3  # runs before it is recorded: libraries choose kernels and take their workspaces


def warm_up(parts: Sequence[Callable[[], None]], device: torch.device) -> None:
    """Run the parts in turn a few times, on a GPU beside the main stream, as recording asks for."""
    if device.type != "cuda":
        for part in parts:
            part()
        return
    main, side = torch.cuda.current_stream(device), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    side.wait_stream(main)
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            for part in parts:
                part()
    main.wait_stream(side)


def record(parts: Sequence[Callable[[], None]]) -> list[Callable[[], None]]:
    """Functions that replay the parts, in this order only: they share their memory.

    What the parts read and write between runs stays where it is, and none of them asks the device for a value.

    Raises:
        RuntimeError: a part does what cannot be recorded, or the memory does not suffice.
    """
    replays: list[Callable[[], None]] = []
    pool = None
    for part in parts:
        graph = torch.cuda.CUDAGraph()
        # Other threads (rows that are gathered ahead, nccl's watch) may talk to the driver meanwhile.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            part()
        pool = graph.pool()
        replays.append(graph.replay)
    return replays
