"""Leave out what a library imports only because it is there."""

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def hidden(*names: str) -> Iterator[None]:
    """While the block runs, importing these packages fails as if they were not installed; those imported already stay.

    Args:
        names: of packages that a library in the block uses where it finds them and can do without.
    """
    absent = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
