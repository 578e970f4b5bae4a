"""A worker that is warm and waits for its word to serve; `workers.py` gives it, by files of a folder that both know.

Until then it takes no request and shows in no figure. It counts events and takes new bundles as those do that serve, so that it
serves what they serve.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tritower.serving.watching import Lookout

if TYPE_CHECKING:
    from tritower.serving.holder import Holder

_LOOK_S = 0.05
Places = Mapping[str, tuple[str, str]]
"""Of each bundle, by name: where newer ones are looked for, and what `watching.tag` said before it was read."""


def warm_file(folder: Path, pid: int) -> Path:
    """The file by which a worker says that it is warm."""
    return folder / f"warm-{pid}"


def word_file(folder: Path, pid: int) -> Path:
    """The file by which a worker is told to serve."""
    return folder / f"word-{pid}"


def wait(folder: Path, pid: int, holder: "Holder", places: Places, poll_s: float) -> Places:
    """Say that this process is warm, and wait until it is to serve.

    A newer bundle that lies at a place by then is taken before this returns: the others may have it already, and what they
    have left no answer may come from.

    Args:
        folder: of the server's workers.
        pid: of this process.
        holder: takes new bundles.
        places: of the bundles that it holds.
        poll_s: seconds between looks for new bundles; 0 = never.

    Returns:
        The places with what was read there last.
    """
    lookouts = {name: _lookout(holder, name, *place, poll_s) for name, place in places.items()}
    next_look = time.monotonic() + poll_s
    warm_file(folder, pid).touch()
    told = False
    while not told:
        told = word_file(folder, pid).exists()
        if poll_s and (told or time.monotonic() >= next_look):
            for lookout in lookouts.values():
                lookout.look()
            next_look = time.monotonic() + poll_s
        elif not told:
            time.sleep(_LOOK_S)
    return {name: (lookout.location, lookout.seen) for name, lookout in lookouts.items()}


def _lookout(holder: "Holder", name: str, location: str, seen: str, poll_s: float) -> Lookout:
    return Lookout(location, lambda: holder.swap(location, name), seen=seen, poll_s=poll_s)
