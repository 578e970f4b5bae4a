"""What a step keeps while it works, so that its next attempt goes on from there: a place beside the artifact that it makes.

A backend starts a killed step again with the executor input of the first attempt and an empty disk. So what outlasts an attempt
has to be in the run's store, at a place that follows from the executor input alone: `beside` an output artifact.
"""

import contextlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from tritower.errors import CredentialsError, StorageError
from tritower.storage import transfer
from tritower.storage.location import Location, LocationLike

ARTIFACTS = "TRITOWER_ARTIFACTS"
"""Variable: JSON, path -> location of the artifacts of a step that works on paths in their place."""

_log = logging.getLogger(__name__)
_PAUSES_S = (5.0, 15.0, 40.0)
_Value = TypeVar("_Value")


def beside(artifact: LocationLike, what: str = "checkpoint") -> str:
    """The location of what is kept while the file or folder `artifact` is made: a hidden sibling, `.<name>.<what>`.

    Hidden, and no longer spelling of the artifact's own name: a store is asked for all that begins with a name.
    """
    parent, slash, name = str(artifact).rstrip("/").rpartition("/")
    return f"{parent}{slash}.{name}.{what}"


def located(artifact: LocationLike) -> str:
    """The location of an artifact of this step's: where its path stands for one in a store, that one."""
    named: dict[str, str] = json.loads(os.environ.get(ARTIFACTS, "{}"))
    return named.get(str(artifact), str(artifact))


@contextlib.contextmanager
def kept(artifact: LocationLike, chosen: str = "") -> Iterator[str]:
    """A location for checkpoints while the block makes `artifact`; removed when the block ends well, left when it fails.

    Args:
        artifact: location of what the step makes.
        chosen: the user's own location, which is handed on as it is and never removed.

    Yields:
        The location; empty, after one warning, where the run's store cannot be written to from here: a step without the store's
        keys works as it would without checkpoints.
    """
    place = chosen or beside(located(artifact))
    if not chosen and not _can_write(place):
        place = ""
    yield place
    if place and not chosen:
        _removed(place)


def patiently(read: Callable[[], _Value]) -> _Value | None:
    """What `read` reads from a store, tried again for a minute; None, after one warning, where the store stays away.

    For what a step can do without at a price: it begins from nothing.
    """
    pauses_s = list(_PAUSES_S)
    while True:
        try:
            return read()
        except StorageError as error:
            if not pauses_s or isinstance(error, CredentialsError):
                _log.warning("no checkpoint can be read, the work begins from nothing: %s", error)
                return None
            _log.info("trying again in %.0f s: %s", pauses_s[0], error)
            time.sleep(pauses_s.pop(0))


def tried(write: Callable[[], object], what: str) -> bool:
    """Whether `write` wrote a checkpoint; a store that fails is worth a warning, not the work that the checkpoint is of."""
    try:
        write()
    except StorageError as error:
        _log.warning("%s is not kept, the work goes on without: %s", what, error)
        return False
    return True


def _can_write(place: str) -> bool:
    try:
        if Location.parse(place).is_local:
            return True
        with tempfile.TemporaryDirectory(prefix="kept-") as scratch:
            mark = Path(scratch) / "begun"
            mark.write_text("A step began to work; see tritower.storage.keeping.\n", encoding="utf-8")
            transfer.upload(mark, f"{place}/{mark.name}")
    except StorageError as error:
        _log.warning("no checkpoints: if this step is killed, a retry begins from nothing. %s", error)
        return False
    return True


def _removed(place: str) -> None:
    location = Location.parse(place)
    try:
        if location.is_local and not location.local.exists():
            return
        transfer.remove(location)
        _log.info("done: removed the checkpoints at %s", place)
    except StorageError as error:
        _log.warning("the checkpoints are left behind: %s", error)
