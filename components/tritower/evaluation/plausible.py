"""Figures that are too good to be true: a feature, an id or the log itself tells the label.

Whether a person clicks holds much chance, so no honest ranker comes near an AUC of 1, and none is better than the true
probabilities on pages in random order.
"""

from tritower.evaluation.config import EvaluationConfig
from tritower.evaluation.estimate import Estimate

WHAT_TO_DO = "Look for a column that is written after the click: `python -m tritower.features audit` names those that tell it."
MARGIN = 0.01
"""Relative lift of the AUC over the oracle that chance on few searches, and rounding of the truth table, may give."""


def too_good(value: Estimate, ranker: str, config: EvaluationConfig) -> bool:
    """Whether a ranker's AUC cannot be honest; never on a handful of clicks, where it may be chance."""
    enough = min(value.clicks, value.rows - value.clicks) >= config.min_searches
    return enough and config.suspicious_auc < 1 and value.value[ranker]["auc"] >= config.suspicious_auc


def warnings(estimates: dict[str, Estimate], names: dict[str, str], config: EvaluationConfig) -> list[str]:
    """One sentence per ranker that is too good to be true on a slice, in plain words.

    Args:
        estimates: by slice; passed over are `redrawn`, whose clicks no column has seen, and `ipw`, the same rows as `logged`.
        names: ranker -> name for a reader.
    """
    found = []
    for slice_, value in estimates.items():
        if slice_ in ("redrawn", "ipw"):
            continue
        for ranker in (name for name in names if name in value.value and name != "oracle"):
            if too_good(value, ranker, config):
                auc = value.value[ranker]["auc"]
                found.append(f"Too good to be true: AUC {auc:.4f} of {names[ranker]} on {slice_} searches. {WHAT_TO_DO}")
            elif slice_ == "randomised" and _beats_the_truth(value, ranker, config):
                found.append(
                    f"Too good to be true: {names[ranker]} has a higher AUC on {slice_} searches than the true probabilities. "
                    f"{WHAT_TO_DO}"
                )
    return found


def _beats_the_truth(value: Estimate, ranker: str, config: EvaluationConfig) -> bool:
    return "oracle" in value.value and value.lift(ranker, "oracle", "auc", max(config.level, 0.99)).low > MARGIN
