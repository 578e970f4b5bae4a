"""Leave out what a library imports only because it is there."""

import contextlib
import sys
from collections.abc import Iterator
from importlib.abc import MetaPathFinder


class _Absent(MetaPathFinder):
    """Says that some packages are not there. Cython takes a None in sys.modules for the module, and goes on with it."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname in self._names:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


@contextlib.contextmanager
def hidden(*names: str) -> Iterator[None]:
    """While the block runs, importing these packages fails as if they were not installed; those imported already stay.

    Args:
        names: of packages that a library in the block uses where it finds them and can do without.
    """
    absent = _Absent(names)
    sys.meta_path.insert(0, absent)
    try:
        yield
    finally:
        sys.meta_path.remove(absent)
