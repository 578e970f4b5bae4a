"""The XGBoost baseline of a bundle, to show its order beside the model's.

Legend: N candidates, F features.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xgboost as xgb

from tritower import storage
from tritower.baseline import boost, exact
from tritower.errors import ArtifactError
from tritower.storage import manifest

Floats = npt.NDArray[np.float32]
_VARIANTS = ("standard", "cosines")


class Rival:
    """A trained baseline that reads features alone; any number of threads may ask at once."""

    def __init__(self, fit: boost.Fit, names: list[str], shift: float) -> None:
        """For `load`."""
        self._fit, self.names, self._shift = fit, names, shift

    @staticmethod
    def check(folder: Path) -> None:
        """Refuse a baseline that reads principal components of the embeddings as well: no server has these.

        Raises:
            ArtifactError: it is such a one.
        """
        variant = storage.read_json(folder / "baseline.json")["config"]["variant"]
        if variant not in _VARIANTS:
            remedy = f"Give a baseline of the variant {' or '.join(_VARIANTS)}, or none."
            raise ArtifactError(f"a server cannot show a baseline of the variant {variant!r}", where=str(folder), remedy=remedy)

    @staticmethod
    def load(folder: Path) -> "Rival":
        """Read the model folder that the step `baseline` wrote."""
        return manifest.whole(folder, _load)

    def scores(self, columns: Mapping[str, Floats]) -> Floats:
        """Probabilities of a click at the top position (N,), as the step gives them, from columns (N,) by name."""
        matrix_NF = np.stack([columns[name] for name in self.names], axis=1).astype(np.float32)
        score_N: Floats = exact.sigmoid(self._fit.margin(matrix_NF).astype(np.float64) + self._shift).astype(np.float32)
        return score_N


def _load(folder: Path) -> Rival:
    facts = storage.read_json(folder / "baseline.json")
    booster = xgb.Booster(params={"nthread": 1}, model_file=str(folder / "model.ubj"))
    offset_P = np.array(facts["position_offset"] or [0.0])
    fit = boost.Fit(
        booster=booster, rounds=facts["rounds"], validation=facts["validation_auc"], offset_P=offset_P,
        intercept=facts["intercept"],
    )  # fmt: skip
    return Rival(fit, list(facts["features"]), float(facts["top_shift"]))
