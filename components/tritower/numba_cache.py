"""numba's `njit` for tritower's kernels: compiled code is found again only where every source that went into it is the same.

numba looks at the file of a kernel alone. What the kernel inlines from another file, a function or a constant, is compiled
into it as well, and a change there would go unseen. So the compiled code lies in a folder that is named by the kernel's file
and all files of tritower's that it imports.

Compiling takes half a minute per step, and numba ignores a cache that it cannot write to. An image therefore holds a filled
cache on its read-only root, and the first kernel of a process copies it to `NUMBA_CACHE_DIR`, which is writable.
"""

import ast
import functools
import hashlib
import shutil
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numba import njit  # noqa: TID251 - every other file takes it from here
from numba.core import config
from numba.core.caching import CacheImpl, _CacheLocator

__all__ = ["njit"]
_PACKAGE = Path(__file__).parent
_USUAL: tuple[Any, ...] = tuple(CacheImpl._locator_classes)


class KernelLocator(_CacheLocator):
    """Where the code of one of tritower's kernels lies: below numba's own place, in a folder named by `sources`."""

    def __init__(self, usual: Any, version: str) -> None:
        self._usual = usual
        self._version = version

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> Any:
        """Called by numba for each function with `cache=True`; None for one that is not tritower's."""
        file = Path(py_file)
        if not file.is_relative_to(_PACKAGE):
            return None
        if folder := config.CACHE_DIR:  # type: ignore[attr-defined]
            fill(Path(sys.prefix) / "numba", Path(folder))
        found = (usual.from_function(py_func, py_file) for usual in _USUAL)
        usual = next((one for one in found if one is not None), None)
        return None if usual is None else cls(usual, version(file))

    def get_cache_path(self) -> str:
        """The folder."""
        return str(Path(self._usual.get_cache_path()) / self._version)

    def get_source_stamp(self) -> Any:
        """What numba compares with the stamp of the code that it finds."""
        return self._usual.get_source_stamp()

    def get_disambiguator(self) -> Any:
        """What tells functions of one name apart."""
        return self._usual.get_disambiguator()


CacheImpl._locator_classes = [KernelLocator, *_USUAL]


@functools.cache
def version(file: Path) -> str:
    """16 hex digits over the sources of a module of tritower's and of all that it imports, directly or not."""
    digest = hashlib.sha256()
    for source in sorted(sources(file)):
        digest.update(f"{source.relative_to(_PACKAGE)}\0{hashlib.sha256(source.read_bytes()).hexdigest()}\0".encode())
    return digest.hexdigest()[:16]


def sources(file: Path) -> set[Path]:
    """The files of a module of tritower's and of those that it imports at its top, directly or not."""
    found, open_files = set(), [file]
    while open_files:
        one = open_files.pop()
        if one not in found:
            found.add(one)
            open_files.extend(_imported(one))
    return found


@functools.cache
def _imported(file: Path) -> tuple[Path, ...]:
    names = _names(ast.parse(file.read_text(encoding="utf-8")))
    paths = [_PACKAGE.parent.joinpath(*name.split(".")) for name in names if name.split(".")[0] == _PACKAGE.name]
    return tuple(one for path in paths for one in (path.with_suffix(".py"), path / "__init__.py") if one.is_file())


def _names(module: ast.Module) -> Iterator[str]:
    """Full names of what a module imports: of modules, and of names in them, which may be modules as well."""
    for line in module.body:
        if isinstance(line, ast.Import):
            yield from (name.name for name in line.names)
        elif isinstance(line, ast.ImportFrom) and line.module and not line.level:
            yield line.module
            yield from (f"{line.module}.{name.name}" for name in line.names)


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
