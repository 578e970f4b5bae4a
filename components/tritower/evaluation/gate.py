"""May the challenger go live? Champion against challenger, decided by the low end of a paired interval."""

import math
from dataclasses import dataclass

from tritower.evaluation import plausible
from tritower.evaluation.config import EvaluationConfig
from tritower.evaluation.estimate import RANKING, Estimate
from tritower.evaluation.wording import LABELS, ends, percent
from tritower.metrics.intervals import Interval

BASELINES = ("baseline", "baseline_cos", "baseline_full")
_WHAT_TO_DO = {"pass": "Pass: put the new model in use", "hold": "Hold: keep the current model"}


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether the model may be deployed, and why: the first reason is the one that decides."""

    opens: bool
    reasons: tuple[str, ...]

    def verdict(self) -> str:
        """`pass` or `hold`: plain letters, safe in a pipeline's condition."""
        return "pass" if self.opens else "hold"

    def sentence(self) -> str:
        """The verdict and its deciding reason, for a reader."""
        return f"{_WHAT_TO_DO[self.verdict()]}. {self.reasons[0]}"


def decide(value: Estimate, names: dict[str, str], config: EvaluationConfig) -> Decision:
    """Judge the model against the champion where one was scored, else against every baseline.

    The gate opens when, against each opponent, the low end of the lift of `gate_metric` lies above `gate_min_lift` and no
    other ranking metric is surely worse (the high end of its lift below 0). It holds where that lift cannot be judged, where
    there is no opponent, and where the model's own AUC is too good to be true.

    Reasons to hold come before reasons to pass, and the opponent that is hardest to beat before the others.

    Args:
        value: the slice that decides.
        names: ranker -> name for a reader.
    """
    if value.reason:
        return Decision(opens=False, reasons=(f"Nothing can be judged: {value.reason}.",))
    opponents = ["champion"] if "champion" in value.value else [name for name in BASELINES if name in value.value]
    if not opponents:
        return Decision(opens=False, reasons=("There is nothing to compare with: no rival and no champion was scored.",))
    lifts = {base: value.lift("model", base, config.gate_metric, config.level) for base in opponents}
    against: list[str] = []
    for_it: list[str] = []
    if plausible.too_good(value, "model", config):
        against.append(f"The model's AUC of {value.value['model']['auc']:.4f} is too good to be true")
    for base in sorted(opponents, key=lambda base: lifts[base].low if math.isfinite(lifts[base].low) else -math.inf):
        is_ahead, reason = _reason(lifts[base], names[base], config)
        (for_it if is_ahead else against).append(reason)
    for base in opponents:
        for metric in (metric for metric in RANKING if metric != config.gate_metric):
            other = value.lift("model", base, metric, config.level)
            if other.high < 0:
                against.append(_worse(other, metric, names[base]))
    return Decision(opens=not against, reasons=tuple(f"{reason}." for reason in (*against, *for_it)))


def _reason(lift: Interval, rival: str, config: EvaluationConfig) -> tuple[bool, str]:
    """Whether the model is surely ahead of one rival, and the sentence that says so."""
    metric, least = LABELS[config.gate_metric], config.gate_min_lift
    over = f"{metric} {percent(lift.value)} over {rival}"
    if lift.reason:
        return False, f"{metric} over {rival} cannot be judged: {lift.reason}"
    if lift.low > least:
        return True, f"{over} is {'sure' if least <= 0 else f'surely above {percent(least)}'} ({ends(lift)})"
    if lift.high < 0:
        return False, _worse(lift, config.gate_metric, rival)
    asked = "sure" if least == 0 else f"surely above the {percent(least)} that is asked for"
    return False, f"{over} is not {asked} ({ends(lift)})"


def _worse(lift: Interval, metric: str, rival: str) -> str:
    return f"{LABELS[metric]} is surely lower than that of {rival}: {percent(lift.value)} ({ends(lift)})"
