"""Compiled kernels that an image brings with it: numba looks for them here (`NUMBA_CACHE_LOCATOR_CLASSES`).

Compiling takes half a minute per step, and numba ignores a cache that it cannot write to. An image therefore holds a
filled cache on its read-only root, and the first kernel of a process copies it to `NUMBA_CACHE_DIR`, which is writable.
"""

import functools
import shutil
import sys
import uuid
from pathlib import Path
from typing import Any

from numba.core import config
from numba.core.caching import UserProvidedCacheLocator


class SeededCacheLocator(UserProvidedCacheLocator):
    """numba's locator of `NUMBA_CACHE_DIR`, which first fills that folder from `<prefix>/numba` where it does not exist."""

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> Any:
        """Called by numba for each function with `cache=True`."""
        fill(Path(sys.prefix) / "numba", Path(config.CACHE_DIR))  # type: ignore[attr-defined]
        return super().from_function(py_func, py_file)  # type: ignore[no-untyped-call]


@functools.cache
def fill(source: Path, target: Path) -> None:
    """Copy the folder `source` to `target`, whole or not at all; does nothing without a source or if the target exists."""
    if target.exists() or not source.is_dir():
        return
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    shutil.copytree(source, temporary, copy_function=shutil.copyfile)
    try:
        temporary.rename(target)
    except OSError:  # another process was faster
        shutil.rmtree(temporary)
