"""How well the triple tower ranks against its rivals on a generated log: `python tests/bench/quality.py`.

For each seed: simulate, ingest, fine-tune and embed, features, three XGBoost variants, triple tower, evaluation. Writes
build/bench/quality.json with every seed's figures, their means, and the targets with whether each is met.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from pooling import pooled
from steps import NAMES, Job
from tritower import logs
from tritower.simulate import step as simulate
from tritower.simulate.config import SimulateConfig

METRICS = ("auc", "map@1", "map@3")
LIFTS = {"baseline": "lift", "baseline_cos": "lift_cos", "baseline_full": "lift_full"}
FINETUNE = {"max_clicks": 16_000}
"""More clicks fine-tune better and take longer: about 16 CPU-seconds per 1,000."""
BASELINE = {"search_trials": 0, "depth": 4, "eta": 0.05}
"""What the step's search found best for all three variants on a log of this size; searching anew for each seed takes hours."""
LIMITS = {"auc": 0.105, "map@1": 0.12, "map@3": 0.16}


def run_seed(seed: int, impressions: int, randomised_share: float, work: Path, configs: dict[str, Any]) -> Job:
    """All steps of one seed; finished ones are taken from `work`."""
    folder = work / f"seed{seed}"
    raw = folder / "raw"
    if not raw.exists():
        simulate.run(out=raw, config=SimulateConfig(impressions=impressions, seed=seed, randomised_share=randomised_share))
    job = Job(folder, raw, configs)
    job.prepare()
    job.rankers()
    return job


def reaches(value: float | None, target: float) -> bool:
    """Whether a figure is known and as high as its target."""
    return value is not None and value >= target


def summary(documents: list[dict[str, Any]]) -> dict[str, Any]:
    """Per slice the means over seeds and the pooled lifts; each target with the figure reached."""
    slices = {}
    for name in ("randomised", "redrawn", "logged", "ipw"):
        parts = [document.get(name) for document in documents]
        if None in parts:  # too few searches in random order
            continue
        slices[name] = {
            "mean": {r: {m: statistics.mean(p[r][m] for p in parts) for m in METRICS} for r in NAMES},
            "lift": {b: {m: pooled([p[key][m] for p in parts]) for m in METRICS} for b, key in LIFTS.items()},
            "share_to_oracle": {m: pooled([p["share_to_oracle"][m] for p in parts]) for m in METRICS},
            "calibration_error": statistics.mean(p["model"]["calibration_error"] for p in parts),
        }
    if "randomised" not in slices:
        raise SystemExit("A seed has too few searches in random order to judge: raise --impressions or --randomised-share.")
    part = slices["randomised"]
    share = part["share_to_oracle"]["auc"]["value"]
    targets = {"share of the AUC from XGBoost standard to the oracle": (share, 0.75, reaches(share, 0.75))}
    for metric, limit in LIMITS.items():
        value = part["lift"]["baseline"][metric]["value"]
        targets[f"lift over XGBoost standard, {metric}"] = (value, limit, reaches(value, limit))
        rival = max(LIFTS, key=lambda name, metric=metric: part["mean"][name][metric])
        low = part["lift"][rival][metric]["low"]
        targets[f"low end of the lift over {rival} (the strongest), {metric}"] = (low, 0.0, low is not None and low > 0)
    decay = SimulateConfig().examination_decay
    curves = [document["examination_learned"][:10] for document in documents]
    error = max(abs(seen * position**decay - 1) for curve in curves for position, seen in enumerate(curve, 1))
    targets["examination learned, largest relative error at positions 1 to 10"] = (error, 0.25, error <= 0.25)
    targets["calibration error"] = (part["calibration_error"], 0.01, part["calibration_error"] < 0.01)
    return {
        "slices": slices,
        "targets": {name: {"reached": reached, "target": t, "met": met} for name, (reached, t, met) in targets.items()},
    }


def main() -> None:
    """Parse the command line, run every seed, write and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--impressions", type=int, default=1_200_000)
    parser.add_argument("--randomised-share", type=float, default=0.3, help="share of searches shown in random order")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--work", type=Path, default=Path("build/bench/quality"))
    parser.add_argument("--out", type=Path, default=Path("build/bench/quality.json"))
    parser.add_argument("--config", type=json.loads, default={}, help='knobs per step, such as {"ranker": {"epochs": 4}}')
    given = parser.parse_args()
    logs.setup()
    wanted = {"finetune": FINETUNE, "baseline": BASELINE, **given.config}
    configs = {name: knobs for name, knobs in wanted.items() if knobs is not None}
    documents, steps = [], []
    for seed in (int(text) for text in given.seeds.split(",")):
        job = run_seed(seed, given.impressions, given.randomised_share, given.work, configs)
        document = job.judge()
        document.pop("roc")
        documents.append(document)
        steps.append(json.loads(job.record.read_text()))
    asked = {"impressions": given.impressions, "randomised_share": given.randomised_share, "seeds": given.seeds}
    result = {**asked, **summary(documents), "per_seed": documents, "steps": steps}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    for name, part in result["slices"].items():
        for metric in METRICS:
            print(f"{name:10s} {metric:6s} " + "  ".join(f"{r} {part['mean'][r][metric]:.4f}" for r in NAMES))
    for name, target in result["targets"].items():
        reached = "cannot be judged" if target["reached"] is None else f"{target['reached']:.4f}"
        print(f"{'met   ' if target['met'] else 'MISSED'} {name}: {reached} (target {target['target']})")


if __name__ == "__main__":
    main()
