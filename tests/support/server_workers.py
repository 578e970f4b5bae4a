"""The workers of a server: which serve, which wait."""

from dataclasses import dataclass
from pathlib import Path

import psutil
from tritower.serving import server, standby

from tests.support.serving_process import Served, until


@dataclass
class Workers:
    """Those of a server that takes requests."""

    running: Served
    folder: Path

    @staticmethod
    def of(running: Served) -> "Workers":
        """Find the folder where they say how far they are."""
        child = psutil.Process(running.process.popen.pid).children()[0]
        return Workers(running, Path(child.environ()["PROMETHEUS_MULTIPROC_DIR"]))

    def alive(self) -> list[psutil.Process]:
        """All of them, those that load as well."""
        return psutil.Process(self.running.process.popen.pid).children()

    def serving(self) -> list[psutil.Process]:
        """Those that take requests."""
        return [one for one in self.alive() if server.ready_file(self.folder, one.pid).exists()]

    def spare(self, within_s: float = 240.0) -> psutil.Process:
        """The one that waits, as soon as there is one."""
        found: list[psutil.Process] = []

        def there() -> bool:
            found[:] = [
                one
                for one in self.alive()
                if standby.warm_file(self.folder, one.pid).exists()
                and not standby.word_file(self.folder, one.pid).exists()
            ]  # fmt: skip
            return bool(found)

        until(there, within_s)
        return found[0]
