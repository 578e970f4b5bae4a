"""GPUs, as far as it needs no torch to know them: how many processes may have one each, and why none is used."""

import os
from pathlib import Path

from tritower.errors import ConfigError

REPEATABLE = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
"""Variables without which cuBLAS does not give the same sums twice (32 MiB of workspace). It reads them when CUDA starts, so
they belong into the environment of a process before that. Source: CUDA documentation, cuBLAS, results reproducibility."""

DRIVER = 580
"""The oldest branch of NVIDIA's driver that runs what is built for CUDA 13. Source: CUDA compatibility, table 1."""


def check(processes: int, visible: int, *, needed: bool = False, where: str = "processes") -> None:
    """Refuse more processes on this machine than it has GPUs for.

    Args:
        processes: on this machine; each takes a GPU of its own.
        visible: GPUs that can be used, `torch.cuda.device_count()`. With 0 the processes use CPUs, unless GPUs are `needed`.
        needed: whether they were asked for by name.
        where: the knob that says how many processes there are.

    Raises:
        ConfigError: there are too few.
    """
    if processes <= visible or not (visible or needed):
        return
    work = "CUDA_VISIBLE_DEVICES= (empty) to compute on CPUs" if not needed else "the device to cpu"
    raise ConfigError(
        f"{processes} process(es) on one machine take a GPU each, and {visible} GPU(s) are visible",
        where=where,
        remedy=f"Use at most {visible} process(es), or give more GPUs; or set {work}." if visible else f"Set {work}.",
    )


def unused(built_for: str | None, *, dev: Path = Path("/dev"), proc: Path = Path("/proc/driver/nvidia/version")) -> str:
    """Why torch sees no GPU although one was given to this machine or container; empty where none was given.

    Args:
        built_for: `torch.version.cuda`; None is a build for CPUs.
        dev: where the GPUs' device files are.
        proc: the driver's own account of its version.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1") or not any(dev.glob("nvidia[0-9]*")):
        return ""
    if not built_for:
        return "a GPU is here, but this torch is built for CPUs"
    words = proc.read_text(encoding="utf-8").split() if proc.exists() else []
    release = next((word for word in words if word.count(".") >= 1 and word[0].isdigit()), "unknown")
    return (
        f"a GPU is here, but torch (CUDA {built_for}) cannot use it: the driver is {release}, CUDA 13 needs {DRIVER} or newer"
    )
