"""A process that is killed on its way: by a thread of its own, so it comes to no end before, however busy the machine is.

    python -m tests.support.killed FOLDER PATTERN MODULE [ARGUMENT...]

runs a module until a file below the folder fits the pattern.
"""

import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def at(folder: Path, pattern: str, act: Callable[..., Any], *words: Any, **named: Any) -> None:
    """Call `act`, and kill this process as soon as a file below the folder fits the pattern."""

    def look() -> None:
        while not any(folder.glob(pattern)):
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=look, daemon=True).start()
    act(*words, **named)


if __name__ == "__main__":
    place, wanted, name, *rest = sys.argv[1:]
    sys.argv = [name, *rest]
    at(Path(place), wanted, runpy.run_module, name, run_name="__main__", alter_sys=True)
