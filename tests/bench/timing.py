"""Paired timing: every side is run in turn, round after round, so that a drifting machine hits all sides alike."""

import statistics
import time
from collections.abc import Callable
from typing import Any


def cpu_seconds(function: Callable[[], Any]) -> float:
    """Process CPU seconds (all threads, user and system) of one call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def paired(
    name: str,
    *,
    ours: Callable[[], Any],
    naive: Callable[[], Any],
    peer: Callable[[], Any] | None = None,
    unit: str = "CPU s",
    rounds: int = 5,
    scale: dict[str, float] | None = None,
    limit_share: float | None = None,
) -> dict[str, Any]:
    """One row of bench.json: medians over `rounds` of each side and the medians of the ratios round by round.

    Args:
        scale: side -> factor, where a slow side was given 1/factor of the work.
        limit_share: share of the measured hardware limit that ours reaches, where one is known.
    """
    factor = {"ours": 1.0, "naive": 1.0, "peer": 1.0} | (scale or {})
    sides = {"ours": ours, "naive": naive} | ({"peer": peer} if peer else {})
    for function in sides.values():
        function()  # warm-up: compilation, caches, page-ins
    times: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, function in sides.items():
            times[side].append(cpu_seconds(function) * factor[side])
    ratio = {side: statistics.median(t / o for t, o in zip(times[side], times["ours"], strict=True)) for side in sides}
    return {
        "name": name,
        "ours": statistics.median(times["ours"]),
        "naive": statistics.median(times["naive"]),
        "peer": statistics.median(times["peer"]) if peer else None,
        "unit": unit,
        "ratio_naive": ratio["naive"],
        "ratio_peer": ratio.get("peer"),
        "limit_share": limit_share,
    }
