"""The kernels that numerical libraries use: in a run on this machine the same as in the images.

numba compiles for the processor at hand, and OpenBLAS picks a kernel for it; sums then run in another order and differ in the
last bit. What the models of a run are trained on does not hang on it: cosines, principal components and trees are equal to the
bit whatever the kernel (see `tritower.baseline.exact`). The rest, such as the last digits of an interval, is equal where the
kernels are.

A user's own setting wins over the images', on this machine and in containers that it starts.
"""

import contextlib
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path

NUMBA = {
    "NUMBA_CPU_NAME": "x86-64-v3",
    "NUMBA_CPU_FEATURES": "+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+movbe,+xsave",
}
OPENBLAS = {"OPENBLAS_CORETYPE": "Haswell"}
IMAGES = NUMBA | OPENBLAS
"""What the images name: kernels for every x86-64 processor since 2015."""


@contextlib.contextmanager
def as_in_the_images() -> Iterator[None]:
    """While the block runs, processes started here use the images' kernels: where this processor can run them, and each library
    for itself, where the user has named nothing."""
    own: dict[str, str] = {}
    for group in (NUMBA, OPENBLAS) if _can_run() else ():
        if not any(name in os.environ for name in group):
            own |= group
    os.environ.update(own)
    try:
        yield
    finally:
        for name in own:
            del os.environ[name]


def of_the_user() -> dict[str, str]:
    """The user's own settings: for containers, which would otherwise have the images'."""
    return {name: os.environ[name] for name in IMAGES if name in os.environ}


def _can_run() -> bool:
    cpu = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not cpu.exists():
        return False
    flags = set(re.findall(r"^flags\s*:(.*)$", cpu.read_text(), re.MULTILINE)[0].split())
    return {"avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"} <= flags
