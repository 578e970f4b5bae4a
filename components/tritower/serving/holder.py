"""Up to two bundles at work under names, each of which can be exchanged while it answers."""

import contextlib
import logging
import tempfile
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

from tritower import storage
from tritower.errors import ConfigError
from tritower.logs import phase
from tritower.serving.config import Precision
from tritower.serving.ranking import Ranking

MAIN = "main"
_MOST = 2
_log = logging.getLogger(__name__)
Prepare = Callable[[Ranking], None]


class Holder:
    """Named rankings. A request takes one by `get` and keeps it to its end: a swap changes what the next request gets.

    An old ranking goes, with the copy of its bundle, when its last request has ended.
    """

    def __init__(self, *, precision: Precision = "auto", prepare: Prepare | None = None) -> None:
        """Args:
        precision: what queries are encoded in.
        prepare: called with a ranking that is warm, before it answers anybody: to count what has happened since its state.
        """
        self._precision, self._prepare = precision, prepare
        self._rankings: dict[str, Ranking] = {}
        self._swapping = threading.Lock()

    def get(self, name: str | None = None) -> Ranking:
        """The ranking of a name; `main` for None.

        Raises:
            ConfigError: there is none of this name.
        """
        found = self._rankings.get(name or MAIN)
        if found is None:
            known = ", ".join(self.names()) or "none"
            raise ConfigError(f"no bundle is called {name or MAIN!r}", where="server", remedy=f"There are: {known}.")
        return found

    def other(self) -> Ranking | None:
        """The ranking beside `main`, if there is one."""
        return next((ranking for name, ranking in list(self._rankings.items()) if name != MAIN), None)

    def names(self) -> list[str]:
        """The names in use."""
        return list(self._rankings)

    def swap(self, location: str | Path, name: str = MAIN) -> Ranking:
        """Read a bundle aside, check it, warm it, and put it in the place of that of this name, or beside the other.

        A location on this machine is read where it lies, so it is to be replaced as a whole, not file by file. One that is
        replaced while it is read is read from the start: no ranking has parts of two.

        Raises:
            TritowerError: the bundle is refused; what answered goes on answering.
        """
        with self._swapping:
            if name not in self._rankings and len(self._rankings) >= _MOST:
                problem = f"{_MOST} bundles are at work: {', '.join(self.names())}"
                raise ConfigError(problem, where="server", remedy="Swap one of them, or drop it first.")
            with phase(_log, f"load the bundle {name}") as counts:
                ranking = self._opened(location, name)
                ranking.warm()
                if self._prepare:
                    self._prepare(ranking)
                counts["bundle"] = ranking.versions.bundle[:12]
            self._rankings[name] = ranking
            return ranking

    def drop(self, name: str) -> None:
        """Give up a bundle; requests that have begun keep it."""
        self._rankings.pop(name, None)

    def _opened(self, location: str | Path, name: str) -> Ranking:
        if storage.is_local(location):
            return Ranking.open(storage.local_path(location), name, precision=self._precision)
        with contextlib.ExitStack() as refused:
            scratch = refused.enter_context(tempfile.TemporaryDirectory(prefix="tritower-bundle-"))
            folder = storage.fetch_tree(location, Path(scratch) / "bundle")
            ranking = Ranking.open(folder, name, precision=self._precision)
            weakref.finalize(ranking, refused.pop_all().close)
        return ranking
