"""May the challenger go live? Champion against challenger, decided by the low end of a paired interval."""

from dataclasses import dataclass

from tritower.evaluation import plausible
from tritower.evaluation.config import EvaluationConfig
from tritower.evaluation.estimate import RANKING, Estimate

BASELINES = ("baseline", "baseline_cos", "baseline_full")


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether the model may be deployed, and each reason in plain words."""

    opens: bool
    reasons: tuple[str, ...]

    def verdict(self) -> str:
        """`pass` or `hold`: plain letters, safe in a pipeline's condition."""
        return "pass" if self.opens else "hold"


def decide(value: Estimate, names: dict[str, str], config: EvaluationConfig) -> Decision:
    """Judge the model against the champion where one was scored, else against every baseline.

    The gate opens when, against each opponent, the low end of the lift of `gate_metric` lies above `gate_min_lift` and no
    other ranking metric is surely worse (the high end of its lift below 0). It holds where that lift cannot be judged, where
    there is no opponent, and where the model's own AUC is too good to be true.

    Args:
        value: the slice that decides.
        names: ranker -> name for a reader.
    """
    if value.reason:
        return Decision(opens=False, reasons=(f"Nothing can be judged: {value.reason}.",))
    opponents = ["champion"] if "champion" in value.value else [name for name in BASELINES if name in value.value]
    if not opponents:
        return Decision(
            opens=False, reasons=("There is nothing to compare with: neither a baseline nor a champion was scored.",)
        )
    reasons, opens = [], True
    for base in opponents:
        lift = value.lift("model", base, config.gate_metric, config.level)
        ahead = lift.low > config.gate_min_lift
        opens &= ahead
        if lift.reason:
            reasons.append(f"{config.gate_metric} over {names[base]} cannot be judged: {lift.reason}.")
            continue
        reasons.append(
            f"{config.gate_metric} over {names[base]}: lift {100 * lift.value:+.1f} %, low end {100 * lift.low:+.1f} %, "
            f"{'above' if ahead else 'not above'} the {100 * config.gate_min_lift:+.1f} % that is asked for."
        )
        for metric in RANKING:
            other = value.lift("model", base, metric, config.level)
            if metric != config.gate_metric and other.high < 0:
                opens = False
                reasons.append(f"{metric} is surely worse than that of {names[base]}: at best {100 * other.high:+.1f} %.")
    if plausible.too_good(value, "model", config):
        opens = False
        reasons.append(f"The model's AUC of {value.value['model']['auc']:.4f} is too good to be true.")
    return Decision(opens=opens, reasons=tuple(reasons))
