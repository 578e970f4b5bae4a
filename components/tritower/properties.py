"""What an artifact says of itself on a backend's page: the figures of a step, and where they come from.

A step that takes the location of its data in place of the artifact finds what others need of this in the data's manifest.
"""

import math
import os
from collections.abc import Mapping
from typing import Any

from tritower import __version__, storage

_HANDED_ON = ("data_version", "base_model")
_NOTED = (*_HANDED_ON, "rows")


def describe(artifact: Any, figures: Mapping[str, Any], *made_from: Any) -> None:
    """Write an artifact's properties: figures, what its inputs know of the data and the base model, the code.

    They hang on inputs and code alone, so that a step that runs again says the same. A backend stores no None and no number
    that is not finite: such figures are left out, as is what an input does not know. It gives whole numbers back as floats.

    Args:
        artifact: a KFP artifact; gets the properties in its metadata.
        figures: of the step: rows, AUC and the like.
        made_from: the artifacts that it was made from, or what `of` knows of them; None for those that were not given. The
            first one that knows counts.
    """
    known_of = [one if isinstance(one, Mapping) else one.metadata for one in made_from if one]
    handed_on = {key: one[key] for one in reversed(known_of) for key in _HANDED_ON if one.get(key) is not None}
    code = {"code_version": __version__, "image_tag": os.environ.get("TRITOWER_IMAGE", "")}
    known = {**handed_on, **figures, **code}
    artifact.metadata.update({key: value for key, value in known.items() if value is not None and not _is_infinite(value)})


def hand_on(artifact: Any, written: str) -> str:
    """The location of an artifact that is described and written, for steps that take this in place of the artifact.

    Its data's manifest gets what these steps say of it in turn; see `of`.

    Args:
        artifact: a KFP artifact, a folder.
        written: where its data is: its local copy, or its place in the run's store.

    Raises:
        StorageError: the manifest cannot be written.
    """
    storage.leave_notes(written, {key: artifact.metadata[key] for key in _NOTED if key in artifact.metadata})
    return storage.located(artifact.uri)


def of(location: str) -> dict[str, Any]:
    """What the manifest at a location knows: data_version, base_model, rows, as far as its step did.

    Args:
        location: as `hand_on` gave it, or a copy; empty for none.

    Raises:
        StorageError: the store cannot be read.
    """
    return storage.read_notes(location) if location else {}


def _is_infinite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
