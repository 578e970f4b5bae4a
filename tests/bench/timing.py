"""Paired timing: every side is run in turn, round after round, so that a drifting machine hits all sides alike."""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


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


def checked(row: dict[str, Any]) -> dict[str, Any]:
    """The row, if its figures can be: nothing is faster than its limit, and no side takes less than nothing."""
    share = row.get("limit_share")
    if share is not None and not 0 < share <= 1:
        raise ValueError(f"{row['name']}: {share:.2f} of a limit, so the limit is wrong or was measured on a busier machine")
    if not row["ours"] > 0:
        raise ValueError(f"{row['name']}: {row['ours']} {row['unit']}")
    return row


def peak_mib() -> float:
    """The most memory that this process has held at once, in MiB.

    Linux hands `ru_maxrss` down: a child begins with its parent's mark, even across exec, so that small steps started by a
    large bench all show the bench. VmHWM belongs to the program alone.
    """
    if _STATUS.exists():
        return next(int(line.split()[1]) / 1024 for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2**20 if sys.platform == "darwin" else most / 1024


def forget_peak() -> None:
    """Let `peak_mib` begin at what the process holds now, where the system can."""
    if _CLEAR.exists():
        _CLEAR.write_text("5")


def measured(program: str, *arguments: str, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """`peak_mib`, `cpu_s` and `wall_s` of a program in a process of its own, and `result`, the name it may assign last."""
    report = (
        "\nimport sys\nsys.path.insert(0, " + repr(str(Path(__file__).parent)) + ")\nimport json, timing\n"
        "print(json.dumps(timing.spent() | {'result': globals().get('result')}))\n"
    )
    start = time.perf_counter()
    command = [sys.executable, "-c", program + report, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | (environment or {}))
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found | {"wall_s": time.perf_counter() - start}


def spent() -> dict[str, float]:
    """What this process has taken so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"peak_mib": peak_mib(), "cpu_s": used.ru_utime + used.ru_stime}
