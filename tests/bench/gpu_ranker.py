"""The ranker's steps on a device: the ways to take them side by side, and against a plain loop over a joined table.

`tests/bench/gpu.py` calls `figures`; `python tests/bench/gpu_ranker.py` prints them alone, on a CPU with `--tiny` as a test of
itself. All sides of a size run in turn, round after round, in one process; a side's time is the median of its rounds. They
compute the same function with the same losses (`bench_ranker.same_loss` holds the plain one against ours).

Legend: N rows, B rows of a step, D embedding width.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parent))
from ranker_rivals import Learner, RowNetwork
from tritower.ranker import device as devices
from tritower.ranker.batches import Shares, Source
from tritower.ranker.config import NetworkConfig, RankerConfig, TrainingConfig
from tritower.ranker.eager import EagerSteps
from tritower.ranker.network import ClickModel
from tritower.ranker.optimiser import FlatAdamW
from tritower.ranker.process_group import ProcessGroup
from tritower.ranker.rows import Rows
from tritower.ranker.tabled import TabledSteps


@dataclass(frozen=True)
class Size:
    """How large everything is."""

    rows: int = 1 << 20
    batches: tuple[int, ...] = (2048, 16_384, 65_536)
    dim: int = 384
    features: int = 60
    queries: int = 9_000
    texts: int = 16_000
    classes: int = 250
    seconds: float = 1.0
    """Of a side's round, about; the first round says how many steps that is."""
    rounds: int = 3


TINY = Size(rows=2000, batches=(256, 512), dim=16, features=6, queries=50, texts=300, classes=9, seconds=0.05, rounds=2)
PER_REQUEST = 15


def made_up(size: Size) -> tuple[Rows, np.ndarray]:
    """Rows and embeddings in the shape of a real log, as `bench_ranker.write_log` has them."""
    random, n = np.random.default_rng(0), size.rows
    request = (np.arange(n) // PER_REQUEST).astype(np.int32)
    document = size.queries + (random.random(n) ** 2 * (size.texts - size.queries)).astype(np.int32)
    rows = Rows(
        query=random.integers(0, size.queries, n // PER_REQUEST + 1, dtype=np.int32)[request],
        document=document.astype(np.int32),
        description=np.empty((n, 0), np.int32),
        request=request,
        position=(np.arange(n) % PER_REQUEST + 1).astype(np.int16),
        clicked=random.random(n) < 0.08,
        randomised=np.zeros(n, bool),
        feature=random.normal(size=(n, size.features)).astype(np.float16),
        occupation=(document % size.classes).astype(np.int16),
    )
    matrix_TD = random.normal(size=(size.texts, size.dim)).astype(np.float32)
    return rows, (matrix_TD / np.linalg.norm(matrix_TD, axis=1, keepdims=True)).astype(np.float16)


class Side:
    """One way to train; `run` takes steps and waits for the device."""

    def __init__(self, take: Callable[[int], None], device: torch.device, *, same_bits: bool) -> None:
        self.take, self.device, self.same_bits, self.done = take, device, same_bits, 0
        self.count, self.each_s = 1, list[float]()

    def run(self, count: int) -> float:
        """Seconds of so many steps."""
        if self.device.type == "cuda":
            torch.use_deterministic_algorithms(self.same_bits)
        waited(self.device)
        start = time.perf_counter()
        for step in range(self.done, self.done + count):
            self.take(step)
        waited(self.device)
        self.done += count
        return time.perf_counter() - start

    def timed(self, seconds: float) -> None:
        """One round; the first one is a trial."""
        if not self.each_s:
            self.run(2)
            self.count = max(2, int(seconds / max(self.run(3) / 3, 1e-6)))
        self.each_s.append(self.run(self.count) / self.count)

    @property
    def ms(self) -> float:
        """Of a step, the median of the rounds."""
        return 1000 * statistics.median(self.each_s)


def waited(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def knobs(size: Size, batch: int) -> RankerConfig:
    """The defaults without descriptions, which the plain loop does not know; more epochs than any side gets through."""
    return RankerConfig(
        network=NetworkConfig(occupation_classes=size.classes, descriptions=False),
        training=TrainingConfig(epochs=max(1, 40_000 * batch // size.rows), batch_size=batch),
    )


def ours(size: Size, batch: int, source: Source, *, way: str, bf16: bool = False) -> Any:
    """Steps of a fresh network; `way` is a `launch.loop`."""
    config, device = knobs(size, batch), source.device
    torch.manual_seed(0)
    model = ClickModel(config.network, dim=size.dim, features=size.features).to(device)
    optimiser = FlatAdamW(model, config.optimiser)
    shares = Shares(source.rows, seed=0, batch_size=batch)
    common: dict[str, Any] = {"config": config, "steps": shares.per_epoch * config.training.epochs, "bf16": bf16}
    if way == "eager":
        return EagerSteps(model, optimiser, source, shares, **common)
    graph = device.type == "cuda" and way != "tables"
    return TabledSteps(
        model, optimiser, source, shares, group=ProcessGroup(device=device), graph=graph, compiled=way == "compiled", **common
    )


def plain(size: Size, batch: int, source: Source) -> Callable[[int], None]:
    """A loop over one table of both embeddings and the features of every row, on the device: no join, no gather by text."""
    config, device, columns = knobs(size, batch), source.device, source.columns
    learner = Learner(RowNetwork(ClickModel(config.network, dim=size.dim, features=size.features), config, size.dim), config)
    learner.network.to(device)
    learner.average.to(device)
    texts = [
        config.network.text_scale * source.matrix_TD.index_select(0, columns[name]).float() for name in ("query", "document")
    ]
    table_NX = torch.cat([*texts, columns["feature"].float()], dim=1)
    others = columns["clicked"].float(), columns["position"].long(), columns["occupation"].long()

    def batches() -> Iterator[list[Tensor]]:
        while True:
            order_N = torch.randperm(len(table_NX), device=device)
            for start in range(0, len(order_N) - batch + 1, batch):
                index_B = order_N[start : start + batch]
                yield [table_NX[index_B], *(other[index_B] for other in others)]

    made = batches()
    return lambda _: learner.epoch([next(made)])


class Traffic(TorchDispatchMode):
    """Bytes that the operations of a step read and write when each is a kernel of its own."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not getattr(func, "is_view", False):
            self.total += sum(leaf.nbytes for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor))
        return out


def work(take: Callable[[int], None], step: int) -> dict[str, float]:
    """Multiply-adds x 2 and bytes of one step."""
    with FlopCounterMode(display=False) as counted, Traffic() as traffic:
        take(step)
    return {"gflop": counted.get_total_flops() / 1e9, "gbyte": traffic.total / 1e9}


def bandwidth(device: torch.device) -> float:
    """GB/s of a copy, read and write together: what a kernel can reach, not what the data sheet says."""
    one = torch.empty((1 << 30) if device.type == "cuda" else (1 << 24), dtype=torch.uint8, device=device)
    two = torch.empty_like(one)
    times = []
    for _ in range(6):
        waited(device)
        start = time.perf_counter()
        two.copy_(one)
        waited(device)
        times.append(time.perf_counter() - start)
    return 2 * one.nbytes / min(times) / 1e9


def busy_share(side: Side, count: int) -> float | None:
    """Share of the time of a step in which a kernel or a copy ran; None without a GPU.

    Their times are the profiler's, the step's is that of the rounds: the profiler slows down who launches them.
    """
    if side.device.type != "cuda":
        return None
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        side.run(count)
    spent_us = sum(event.device_time_total for event in profile.events() if event.device_type == DeviceType.CUDA)
    return float(spent_us / 1000 / count / side.ms)


def one_size(size: Size, batch: int, source: Source, peak: float, *, compiled: bool) -> dict[str, Any]:
    """Step times of all sides at one batch size."""
    device = source.device
    ways = {"as 7cd567c": ("eager", True, False), "eager": ("eager", False, True), "tables": ("tables", False, True)}
    if device.type == "cuda":
        ways |= {"graph": ("graph", False, True), "graph, any bits": ("graph", False, False)}
    if compiled:
        ways["compiled"] = ("compiled", False, True)
    kinds = {name: ours(size, batch, source, way=way, bf16=bf16) for name, (way, bf16, _) in ways.items()}
    sides = {name: Side(kinds[name].take, device, same_bits=same) for name, (_, _, same) in ways.items()}
    sides["plain"] = Side(plain(size, batch, source), device, same_bits=False)
    first_s = {name: side.run(1) for name, side in sides.items()}
    for _ in range(size.rounds):
        for side in sides.values():
            side.timed(size.seconds)
    counted = work(kinds["tables"].take, sides["tables"].done)
    found: dict[str, Any] = {"rows": batch, "gflop": counted["gflop"], "gbyte": counted["gbyte"], "first_s": first_s}
    found["ms"] = {name: side.ms for name, side in sides.items()}
    found["rows_per_s"] = {name: 1000 * batch / ms for name, ms in found["ms"].items()}
    found["busy_share"] = {name: busy_share(side, 20) for name, side in sides.items()}
    found["bandwidth_share"] = {name: 1000 * counted["gbyte"] / ms / peak for name, ms in found["ms"].items()}
    if "compiled" in sides and "graph" in sides:
        saved_s = (found["ms"]["graph"] - found["ms"]["compiled"]) / 1000
        found["compile_s"] = first_s["compiled"] - first_s["graph"]
        found["compile_pays_from_steps"] = found["compile_s"] / saved_s if saved_s > 0 else None
    for kind in kinds.values():
        kind.close()
    return found


def not_resident(size: Size, data: tuple[Rows, np.ndarray], source: Source, batch: int) -> dict[str, float]:
    """ms of a step with the rows on the device and on the host, in turn."""
    rows, matrix_TD = data
    away = Source(rows, matrix_TD, source.device, room=matrix_TD.nbytes)
    assert away.embedded and not away.resident
    kinds = [ours(size, batch, one, way="graph") for one in (source, away)]
    sides = [Side(kind.take, source.device, same_bits=True) for kind in kinds]
    for _ in range(size.rounds):
        for side in sides:
            side.timed(size.seconds)
    for kind in kinds:
        kind.close()
    return {"rows": batch, "resident_ms": sides[0].ms, "on_the_host_ms": sides[1].ms, "ratio": sides[1].ms / sides[0].ms}


def members(size: Size, data: tuple[Rows, np.ndarray], device: torch.device, batch: int) -> dict[str, float] | None:
    """GiB at the most of one member and of three, one after the other with one source; None without a GPU."""
    if device.type != "cuda":
        return None
    rows, matrix_TD = data
    most = []
    for count in (1, 3):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before, source, kept = torch.cuda.memory_allocated(device), Source(rows, matrix_TD, device), []
        for _ in range(count):
            kind = ours(size, batch, source, way="graph")
            for step in range(5):
                kind.take(step)
            kind.close()
            kept.append(kind.optimiser)  # as a training keeps its members
        waited(device)
        most.append((torch.cuda.max_memory_allocated(device) - before) / 2**30)
    return {"rows": batch, "one_gib": most[0], "three_gib": most[1], "ratio": most[1] / most[0]}


def figures(device: torch.device, size: Size = Size(), *, compiled: bool = True, until: float = float("inf")) -> dict[str, Any]:
    """All of it; what is not begun by `until` (`time.monotonic`) is left out.

    Returns:
        "sizes": a dict for each batch size; "not_resident", "members", "bandwidth_gb_s".
    """
    devices.set_up(device)
    torch.set_float32_matmul_precision("high")
    data = made_up(size)
    source, peak = Source(*data, device), bandwidth(device)
    found: dict[str, Any] = {"bandwidth_gb_s": peak, "sizes": []}
    middle = size.batches[len(size.batches) // 2]
    if time.monotonic() < until:
        found["not_resident"] = not_resident(size, data, source, middle)
        found["members"] = members(size, data, device, middle)
    for batch in size.batches:
        if time.monotonic() < until:
            found["sizes"].append(one_size(size, batch, source, peak, compiled=compiled))
    return found


def table(found: dict[str, Any]) -> str:
    """The ratios as Markdown: times of every side as multiples of the fastest way of ours."""
    lines = ["| rows a step | side | ms | rows/s | x best of ours | busy | of bandwidth |", "|---|---|---|---|---|---|---|"]
    for one in found["sizes"]:
        best = min(ms for name, ms in one["ms"].items() if name not in ("plain", "as 7cd567c"))
        for name, ms in one["ms"].items():
            busy, speed = one["busy_share"][name], one["rows_per_s"][name]
            shares = f"{'-' if busy is None else f'{busy:.2f}'} | {one['bandwidth_share'][name]:.2f}"
            lines.append(f"| {one['rows']:,} | {name} | {ms:.3f} | {speed:,.0f} | {ms / best:.2f} | {shares} |")
    for one in found["sizes"]:
        if "compile_s" in one:
            pays = one["compile_pays_from_steps"]
            told = "never" if pays is None else f"from {pays:,.0f} steps on"
            lines.append(f"\n{one['rows']:,} rows: {one['compile_s']:.1f} s to compile, which pays {told}")
    others = {name: found[name] for name in ("not_resident", "members") if found.get(name)}
    lines += [f"\n{name}: {', '.join(f'{key} {value:.4g}' for key, value in of.items())}" for name, of in others.items()]
    return "\n".join(lines)


def main() -> None:
    """Print the table and, last, the figures as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="sizes that a CPU gets through in seconds")
    parser.add_argument("--no-compile", action="store_true")
    given = parser.parse_args()
    if not torch.cuda.is_available() and not given.tiny:
        print(f"skipped: torch {torch.__version__} sees no GPU")
        return
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    found = figures(device, TINY if given.tiny else Size(), compiled=not given.no_compile)
    print(table(found))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
