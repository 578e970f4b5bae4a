"""How many threads a process may use: what its container is granted, not what the machine has.

Libraries count the machine's cores. In a pod with a limit of two CPUs on a machine of sixty-four, they start sixty-four
threads; these use up the quota at the start of each scheduling period and then wait for the rest of it.
"""

import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

K = TypeVar("K")
T = TypeVar("T")


def available(*, proc: Path = Path("/proc/self"), cores: int | None = None) -> int:
    """Threads that can run at once: the smallest of the cgroup's quota (version 1 or 2), the CPU affinity and the cores.

    A quota of 1.5 CPUs gives two threads: rounded down, half a CPU would never be used.

    Args:
        proc: where `cgroup` and `mountinfo` of the process are read.
        cores: what affinity and machine allow; asked of the system when None.
    """
    most = cores if cores is not None else _cores()
    granted = quota(proc)
    return most if granted is None else max(1, min(most, math.ceil(granted)))


def chosen(knob: int = 0) -> int:
    """The knob if it is set, else OMP_NUM_THREADS if the user has set it, else `available()`."""
    if knob:
        return knob
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(given) if given.isdigit() and int(given) else available()


def cap_libraries() -> None:
    """Let the matrix and Arrow libraries that this process has loaded use no more than `chosen()` threads.

    A lower limit, from OPENBLAS_NUM_THREADS or MKL_NUM_THREADS, stays. Steps that multiply matrices call this first.
    """
    import pyarrow as pa
    import threadpoolctl

    most = chosen()
    pools = {pool["prefix"]: most for pool in threadpoolctl.threadpool_info() if pool["num_threads"] > most}
    if pools:
        threadpoolctl.threadpool_limits(limits=pools)
    if pa.cpu_count() > most:
        pa.set_cpu_count(most)


def ahead(make: Callable[[K], T], keys: Iterable[K], prepare: Callable[[], object] | None = None) -> Generator[T]:
    """What `make` gives for each key, in order; while one is used, a thread makes the next, and no more than that.

    An error of `make` is raised in the place of its item. Close the generator, or use it up: that ends the thread.

    Args:
        make: called by one thread, one key at a time.
        keys: asked for in the caller's thread.
        prepare: called first in that thread; a thread has a GPU of its own choice otherwise.
    """
    running: deque[Future[T]] = deque()
    with ThreadPoolExecutor(1, "ahead", prepare) as pool:
        for key in keys:
            running.append(pool.submit(make, key))
            if len(running) > 1:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


def quota(proc: Path = Path("/proc/self")) -> float | None:
    """CPUs that the process's cgroup, or a parent of it, grants; None without a limit or without cgroups."""
    try:
        member = [line.split(":", 2) for line in (proc / "cgroup").read_text(encoding="utf-8").splitlines()]
        mounts = [line.split() for line in (proc / "mountinfo").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return None
    limits: list[float | None] = []
    for fields in mounts:
        kind = fields[fields.index("-") + 1]
        options = fields[-1].split(",")
        if kind not in ("cgroup", "cgroup2") or (kind == "cgroup" and "cpu" not in options):
            continue
        paths = [path for _, names, path in member if ("cpu" in names.split(",") if kind == "cgroup" else not names)]
        read = _second_version if kind == "cgroup2" else _first_version
        limits += map(read, _folders(Path(_plain(fields[4])), fields[3], paths[0] if paths else "/"))
    return min((limit for limit in limits if limit is not None), default=None)


def _folders(mount: Path, root: str, path: str) -> list[Path]:
    """The cgroup's folder and its parents, as far as this process sees them.

    Args:
        mount: where the tree is mounted.
        root: which part of the tree that is; in a container often the container's own cgroup, whose `path` then begins so.
        path: the process's cgroup.
    """
    inside = Path(path.removeprefix(root) if root != "/" and path.startswith(root) else path)
    parts = [part for part in inside.parts if part not in ("/", "..")]
    return [mount.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]


def _second_version(folder: Path) -> float | None:
    words = _words(folder / "cpu.max")
    return int(words[0]) / int(words[1]) if len(words) == 2 and words[0].isdigit() and words[1].isdigit() else None


def _first_version(folder: Path) -> float | None:
    given, period = _words(folder / "cpu.cfs_quota_us"), _words(folder / "cpu.cfs_period_us")
    if not given or not period or int(given[0]) <= 0 or int(period[0]) <= 0:
        return None  # -1: no limit
    return int(given[0]) / int(period[0])


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").split()
    except OSError:  # no such cgroup from here
        return []


def _plain(path: str) -> str:
    """A path of mountinfo, where blanks are written in octal."""
    return path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
