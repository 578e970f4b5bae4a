"""What an artifact says of itself on a backend's page: the figures of a step, and where they come from."""

import math
import os
from collections.abc import Mapping
from typing import Any

from tritower import __version__

_HANDED_ON = ("data_version", "base_model")


def describe(artifact: Any, figures: Mapping[str, Any], *made_from: Any) -> None:
    """Write an artifact's properties: figures, what its inputs know of the data and the base model, the code.

    They hang on inputs and code alone, so that a step that runs again says the same. A backend stores no None and no number
    that is not finite: such figures are left out, as is what an input does not know. It gives whole numbers back as floats.

    Args:
        artifact: a KFP artifact; gets the properties in its metadata.
        figures: of the step: rows, AUC and the like.
        made_from: the artifacts that it was made from; None for those that were not given. The first one that knows counts.
    """
    handed_on = {
        key: one.metadata[key] for one in reversed(made_from) if one for key in _HANDED_ON if one.metadata.get(key) is not None
    }
    code = {"code_version": __version__, "image_tag": os.environ.get("TRITOWER_IMAGE", "")}
    known = {**handed_on, **figures, **code}
    artifact.metadata.update({key: value for key, value in known.items() if value is not None and not _is_infinite(value)})


def _is_infinite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
