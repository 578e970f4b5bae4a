"""What is worth knowing of a folder beside its files: a few values in its manifest, read without reading the data."""

import json
from collections.abc import Mapping
from typing import Any

from tritower.storage import swap
from tritower.storage.location import Location, LocationLike
from tritower.storage.manifest import MARK

_NOTES = "properties"


def leave(folder: LocationLike, notes: Mapping[str, Any]) -> None:
    """Put values (JSON) into the manifest of a finished folder, in place of earlier ones; a folder without one stays as it is.

    Raises:
        StorageError: the manifest cannot be read or written.
    """
    place = _mark(folder)
    found = swap.read(place)
    if found and (value := _value(found[0])):
        content = json.dumps(value | {_NOTES: dict(notes)}, indent=1, ensure_ascii=False) + "\n"
        swap.write(place, content.encode(), tag=found[1])  # refused where a new folder has come: these are not its notes


def read(folder: LocationLike) -> dict[str, Any]:
    """The values that `leave` put there; none where there are none, or no folder.

    Raises:
        StorageError: the store cannot be read.
    """
    found = swap.read(_mark(folder))
    notes: dict[str, Any] = _value(found[0]).get(_NOTES, {}) if found else {}
    return notes


def _mark(folder: LocationLike) -> Location:
    return Location.parse(f"{str(folder).rstrip('/')}/{MARK}")


def _value(content: bytes) -> dict[str, Any]:
    """A manifest; empty where it is damaged, which whoever reads the data finds."""
    try:
        value = json.loads(content)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
