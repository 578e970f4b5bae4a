"""Many readers or one writer: an answer is made of one version of everything, an update waits for the answers at work."""

import contextlib
import threading
from collections.abc import Iterator


class Gate:
    """A lock that any number of readers hold together. A writer who waits goes before readers who come later."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers, self._writers, self._writing = 0, 0, False

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """While the block runs, nobody writes. Not to be entered twice by one thread."""
        with self._changed:
            while self._writers:
                self._changed.wait()
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                if not self._readers:
                    self._changed.notify_all()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """While the block runs, nobody reads, and nobody else writes."""
        with self._changed:
            self._writers += 1
            while self._readers or self._writing:
                self._changed.wait()
            self._writing = True
        try:
            yield
        finally:
            with self._changed:
                self._writers, self._writing = self._writers - 1, False
                self._changed.notify_all()
