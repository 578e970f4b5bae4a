"""How far the figures of the demo move with the seeds of training: `python tests/bench/seed_noise.py --work DIR`.

The demo's log, encoder and features are made once, with the knobs of `pipelines/presets/demo.toml`. Then the three XGBoost
rivals and the triple tower are trained once per seed and judged on the same test searches: seed 0 of each is what the demo
publishes. Prints a Markdown table: the spread over seeds beside the bootstrap's interval. The two are different doubts. The
interval asks what other users would have given to the same models, the spread what other models the same log would have given.

Finished parts are taken from DIR, so that a run that was stopped goes on. On 200,000 impressions about 5 CPU-minutes, and 4
more per seed; `--impressions 60000 --stock` takes 2 and 1.
"""

import argparse
import json
import logging
import math
import statistics
import tomllib
from pathlib import Path
from typing import Any

from steps import VARIANTS, Job
from tritower import logs
from tritower.baseline import step as baseline
from tritower.baseline.config import BaselineConfig
from tritower.evaluation import step as evaluation
from tritower.evaluation.config import EvaluationConfig
from tritower.ranker import step as ranker
from tritower.ranker.config import RankerConfig
from tritower.simulate import step as simulate
from tritower.simulate.config import SimulateConfig

METRICS = ("auc", "map@1", "map@3")
SHOWN = {
    "model": "Triple tower",
    "baseline_full": "XGBoost, cosines, PCA, positions",
    "baseline_cos": "XGBoost, cosines",
    "baseline": "XGBoost standard",
}
LIFTS = {"lift_full": "baseline_full", "lift_cos": "baseline_cos", "lift": "baseline"}
PIPELINES = Path(__file__).parents[2] / "pipelines"


def demo(work: Path, impressions: int, *, stock: bool) -> Job:
    """The demo's log up to its features."""
    knobs = tomllib.loads((PIPELINES / "presets" / "demo.toml").read_text())
    log = tomllib.loads((PIPELINES / "demo_log.toml").read_text()) | {"impressions": impressions}
    if stock:
        knobs.pop("finetune", None)
    if not (work / "raw").exists():
        simulate.run(out=work / "raw", config=SimulateConfig(**log))
    job = Job(work, work / "raw", knobs)
    job.prepare()
    return job


def judged(job: Job, seed: int) -> dict[str, Any]:
    """Train everything with the seed-th seeds; the content of metrics.json."""
    name = f"seed{seed}"
    read = {"features": "features", "embeddings": "embeddings"}
    for step, variant in VARIANTS.items():
        knobs = job.config(step, BaselineConfig, variant=variant, seed=BaselineConfig().seed + seed)
        job.step(f"{name} {step}", baseline.run, knobs, **read, model=f"{name}/{step}_model", scores=f"{name}/{step}_scores")
    first = RankerConfig().training.seed
    knobs = job.config("ranker", RankerConfig, seed=first + 1000 * seed)  # members take the seeds that follow
    job.step(f"{name} ranker", ranker.train, knobs, **read, model=f"{name}/model", scores=f"{name}/scores")
    metrics = job.folder / name / "metrics.json"
    if not metrics.exists():
        evaluation.run(
            dataset=job.folder / "dataset", features=job.folder / "features", scores=job.folder / name / "scores",
            **{f"scores_{step}": job.folder / name / f"{step}_scores" for step in VARIANTS}, truth=str(job.raw / "truth"),
            metrics=metrics, config=job.config("evaluation", EvaluationConfig),
        )  # fmt: skip
    document: dict[str, Any] = json.loads(metrics.read_text())
    return document


def spread(values: list[float], interval: dict[str, float | None] | None) -> dict[str, float]:
    """A figure over seeds: the first seed's, mean, standard deviation, range; half the bootstrap's interval (first seed)."""
    low, high = (interval or {}).get("low"), (interval or {}).get("high")
    half = math.nan if low is None or high is None else (high - low) / 2  # too few users or clicks: there is none
    return {
        "first": values[0], "mean": statistics.mean(values), "deviation": statistics.stdev(values), "low": min(values),
        "high": max(values), "bootstrap_half": half,
    }  # fmt: skip


def summary(documents: list[dict[str, Any]], part: str) -> dict[str, dict[str, dict[str, float]]]:
    """Row -> metric -> spread, for each ranker and each lift of the tower, on one slice."""
    slices = [document[part] for document in documents]
    rows = {}
    for key, shown in SHOWN.items():
        rows[shown] = {m: spread([s[key][m] for s in slices], slices[0]["intervals"][key][m]) for m in METRICS}
    for key, rival in LIFTS.items():
        rows[f"lift over {SHOWN[rival]}"] = {
            m: spread([s[key][m]["value"] for s in slices], slices[0][key][m]) for m in METRICS
        }
    return rows


def table(rows: dict[str, dict[str, dict[str, float]]]) -> str:
    """Markdown: per metric the first seed's figure, mean ± standard deviation over seeds [range], and the bootstrap's ±."""
    lines = ["| | " + " | ".join(f"{m}, first | over seeds | bootstrap" for m in METRICS) + " |", "|---" * 10 + "|"]
    for name, metrics in rows.items():
        cells = []
        for found in metrics.values():
            over = f"{found['mean']:.4f} ± {found['deviation']:.4f} [{found['low']:.4f}, {found['high']:.4f}]"
            cells += [f"{found['first']:.4f}", over, f"± {found['bootstrap_half']:.4f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for everything that is made")
    parser.add_argument("--impressions", type=int, default=200_000)
    parser.add_argument("--seeds", type=int, default=5, help="how many, 2 or more (5)")
    parser.add_argument("--stock", action="store_true", help="the stock encoder instead of one that is tuned on the log")
    parser.add_argument("--out", type=Path, default=Path("build/bench/seed_noise.json"))
    given = parser.parse_args()
    logs.setup()
    logging.getLogger("tritower").setLevel(logging.WARNING)
    job = demo(given.work, given.impressions, stock=given.stock)
    documents = [judged(job, seed) for seed in range(given.seeds)]
    result = {part: summary(documents, part) for part in ("randomised", "redrawn", "logged") if part in documents[0]}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    asked = {"impressions": given.impressions, "seeds": given.seeds, "stock": given.stock}
    given.out.write_text(json.dumps(asked | result, indent=1) + "\n")
    for part, rows in result.items():
        first = documents[0][part]
        print(f"\n{part}: {first['requests']} searches, {first['clicks']} clicks, {given.seeds} seeds\n\n{table(rows)}")


if __name__ == "__main__":
    main()
