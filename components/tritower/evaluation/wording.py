"""What a reader sees rankers, metrics and slices called, and their colours."""

import math

from tritower.metrics.intervals import Interval

NAMES = {
    "model": "triple tower",
    "champion": "the champion",
    "baseline": "XGBoost",
    "baseline_cos": "XGBoost with cosines",
    "baseline_full": "XGBoost with everything",
    "oracle": "oracle (best possible)",
}
COLOURS = {
    "model": "#2563eb",
    "champion": "#7c3aed",
    "baseline": "#94a3b8",
    "baseline_cos": "#d97706",
    "baseline_full": "#b91c1c",
    "oracle": "#059669",
}
LABELS = {"auc": "AUC", "map@1": "mAP@1", "map@3": "mAP@3", "ndcg@10": "nDCG@10"}
METRICS = {**LABELS, "log_loss": "log loss", "calibration_error": "calibration error"}
SLICES = {
    "randomised": "Searches shown in random order",
    "ipw": "Logged searches, clicks weighted by inverse examination",
    "redrawn": "All searches, clicks redrawn from the truth",
    "logged": "Searches as logged",
}
NOT_JUDGED = "cannot be judged"


def percent(value: float) -> str:
    """A signed percentage, such as +12.3 %; a dash where there is none."""
    return f"{100 * value:+.1f} %" if math.isfinite(value) else "-"


def ends(lift: Interval) -> str:
    """The ends of a lift's interval in percent, such as -16.3 to +30.5."""
    return NOT_JUDGED if lift.reason else f"{100 * lift.low:+.1f} to {100 * lift.high:+.1f}"


def number(value: float) -> str:
    """A metric's value; a dash where there is none."""
    return f"{value:.4f}" if math.isfinite(value) else "-"
