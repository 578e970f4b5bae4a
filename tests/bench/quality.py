"""How well the triple tower ranks against its rivals on a generated log: `python tests/bench/quality.py`.

For each seed: simulate, ingest, fine-tune and embed, features, triple tower, three XGBoost variants, evaluation. Writes
build/bench/quality.json with every seed's figures, their means, and the targets with whether each is met.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from steps import Job
from tritower import logs
from tritower.simulate import step as simulate
from tritower.simulate.config import SimulateConfig

RANKERS = ("model", "baseline", "baseline_cos", "baseline_full", "oracle")
METRICS = ("auc", "map@1", "map@3")


def run_seed(seed: int, impressions: int, work: Path, configs: dict[str, dict[str, Any]]) -> Job:
    """All steps of one seed; finished ones are taken from `work`."""
    folder = work / f"seed{seed}"
    raw = folder / "raw"
    if not raw.exists():
        simulate.run(out=raw, config=SimulateConfig(impressions=impressions, seed=seed))
    job = Job(folder, raw, configs)
    job.prepare()
    job.baselines()
    job.ranker()
    return job


def summary(documents: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds, and each target with the figure reached."""
    part = [document["randomised"] for document in documents]
    mean = {
        name: {
            metric: {ranker: statistics.mean(d[name][ranker][metric] for d in documents) for ranker in RANKERS}
            for metric in METRICS
        }
        for name in ("randomised", "logged")
    }
    share = statistics.mean(p["share_to_oracle"]["auc"]["value"] for p in part)
    rivals = {}
    for metric in METRICS:
        rival = max(RANKERS[1:4], key=lambda ranker, metric=metric: mean["randomised"][metric][ranker])
        key = {"baseline": "lift", "baseline_cos": "lift_cos", "baseline_full": "lift_full"}[rival]
        rivals[metric] = {"strongest": rival, "lift": [p[key][metric] for p in part]}
    lift = {metric: statistics.mean(p["lift"][metric]["value"] for p in part) for metric in METRICS}
    error = statistics.mean(p["model"]["calibration_error"] for p in part)
    targets = {
        "share of the AUC from XGBoost standard to the oracle": (share, 0.75, share >= 0.75),
        "lift over XGBoost standard, AUC": (lift["auc"], 0.105, lift["auc"] >= 0.105),
        "lift over XGBoost standard, mAP@1": (lift["map@1"], 0.12, lift["map@1"] >= 0.12),
        "lift over XGBoost standard, mAP@3": (lift["map@3"], 0.16, lift["map@3"] >= 0.16),
        "calibration error": (error, 0.01, error < 0.01),
    }
    for metric, rival in rivals.items():
        low = min(item["low"] for item in rival["lift"])
        targets[f"lift over the strongest XGBoost, {metric}, lowest end of an interval"] = (low, 0.0, low > 0)
    return {
        "mean": mean,
        "rivals": rivals,
        "targets": {name: {"reached": r, "target": t, "met": met} for name, (r, t, met) in targets.items()},
    }


def main() -> None:
    """Parse the command line, run every seed, write and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--impressions", type=int, default=1_200_000)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--work", type=Path, default=Path("build/bench/quality"))
    parser.add_argument("--out", type=Path, default=Path("build/bench/quality.json"))
    parser.add_argument("--config", type=json.loads, default={}, help='knobs per step, such as {"ranker": {"epochs": 4}}')
    arguments = parser.parse_args()
    logs.setup()
    configs = {"finetune": {}, **arguments.config}
    configs = {name: knobs for name, knobs in configs.items() if knobs is not None}  # null leaves an optional step out
    documents, steps = [], []
    for seed in (int(text) for text in arguments.seeds.split(",")):
        job = run_seed(seed, arguments.impressions, arguments.work, configs)
        document = job.judge()
        document.pop("roc")
        documents.append(document)
        steps.append(json.loads(job.record.read_text()))
    result = {
        "impressions": arguments.impressions,
        "seeds": arguments.seeds,
        **summary(documents),
        "per_seed": documents,
        "steps": steps,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    for metric in METRICS:
        row = result["mean"]["randomised"][metric]
        print(f"{metric:6s} " + "  ".join(f"{ranker} {row[ranker]:.4f}" for ranker in RANKERS))
    for name, target in result["targets"].items():
        print(f"{'met   ' if target['met'] else 'MISSED'} {name}: {target['reached']:.4f} (target {target['target']})")


if __name__ == "__main__":
    main()
