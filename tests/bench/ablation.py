"""What each group of features is worth on the demo log: `python tests/bench/ablation.py --work DIR`.

Simulate, ingest, embed with the stock encoder, entities and features run once. Then the triple tower (one member) and XGBoost
with standard features are trained on every group but one, and on each group alone beside place and time; features that are
left out are struck from features.json, everything else stays. Prints a Markdown table and writes build/bench/ablation.json.
Finished parts are taken from DIR, so that a run that was stopped goes on. About 12 CPU-minutes on 200,000 impressions.
"""

import argparse
import json
import logging
from pathlib import Path
from typing import Any

from steps import Job
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
SLICES = ("randomised", "redrawn")
BASE = ("place", "time")
STEPS = {"ranker": {"members": 1}, "baseline": {"search_trials": 0, "depth": 4, "eta": 0.1}}


def group(feature: dict[str, Any]) -> str:
    """The group of a feature as features.json describes it."""
    name, kind = feature["name"], feature["kind"]
    if kind == "popularity":
        return "popularity of query" if name.startswith("query") else "popularity of job"
    if kind == "interaction":
        return "past searches" if name.startswith("searches") else "past clicks"
    return {"text": "strings", "embedding": "query-document cosine", "entity": "entities"}.get(kind, kind)


def cases(groups: list[str]) -> dict[str, list[str]]:
    """Case -> groups kept."""
    added = [name for name in groups if name not in BASE]
    return {
        "all": groups,
        "strings, place, time": ["strings", *BASE],
        "place, time": list(BASE),
        **{f"all without {name}": [kept for kept in groups if kept != name] for name in groups},
        **{f"place, time and {name}": [name, *BASE] for name in added if name != "strings"},
    }


class Ablation:
    """The cases of one prepared log."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.document = json.loads((job.folder / "features" / "features.json").read_text())

    def view(self, kept: list[str]) -> tuple[Path, int]:
        """A features folder with the same rows that lists the features of some groups only; and how many."""
        features = self.job.folder / "features"
        chosen = [feature for feature in self.document["features"] if group(feature) in kept]
        view = self.job.folder / "views" / "-".join(sorted(kept)).replace(" ", "_")
        view.mkdir(parents=True, exist_ok=True)
        for part in features.iterdir():
            if part.name != "features.json" and not (view / part.name).exists():
                (view / part.name).symlink_to(part.resolve())
        (view / "features.json").write_text(json.dumps({**self.document, "features": chosen}))
        return view, len(chosen)

    def run(self, kept: list[str]) -> dict[str, Any]:
        """Train and judge both models on some groups; metrics by slice and model."""
        view, count = self.view(kept)
        done = view / "ablation.json"
        if not done.exists():
            job = self.job
            read = {"features": view, "embeddings": job.folder / "embeddings"}
            ranker.train(**read, model=view / "model", scores=view / "scores", config=job.config("ranker", RankerConfig))
            knobs = job.config("baseline", BaselineConfig)
            baseline.run(**read, model=view / "trees", scores=view / "tree_scores", config=knobs)
            evaluation.run(
                dataset=job.folder / "dataset", features=view, scores=view / "scores", scores_baseline=view / "tree_scores",
                scores_baseline_cos=view / "tree_scores", truth=str(job.raw / "truth"), metrics=view / "metrics.json",
                config=job.config("evaluation", EvaluationConfig),
            )  # fmt: skip
            metrics = json.loads((view / "metrics.json").read_text())
            figures = {
                part: {model: {m: metrics[part][model][m] for m in METRICS} for model in ("model", "baseline", "oracle")}
                for part in SLICES
            }
            done.write_text(json.dumps({"features": count, **figures}))
        result: dict[str, Any] = json.loads(done.read_text())
        return result


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: one row per case, AUC / mAP@1 / mAP@3 of both models on both slices."""
    columns = [(part, model) for part in SLICES for model in ("model", "baseline")]
    names = {"model": "TTDP", "baseline": "XGBoost standard"}
    head = ["features", "n", *(f"{names[model]}, {part}" for part, model in columns)]
    rows = [
        [case, str(result["features"]), *(" / ".join(f"{result[p][m][metric]:.3f}" for metric in METRICS) for p, m in columns)]
        for case, result in results.items()
    ]
    first = next(iter(results.values()))
    oracle = [" / ".join(f"{first[p]['oracle'][metric]:.3f}" for metric in METRICS) if m == "model" else "" for p, m in columns]
    lines = [head, ["---"] * len(head), ["oracle", "", *oracle], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for everything that is made")
    parser.add_argument("--raw", type=Path, help="a generated log to use instead of a new one")
    parser.add_argument("--impressions", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("build/bench/ablation.json"))
    given = parser.parse_args()
    logs.setup()
    logging.getLogger("tritower").setLevel(logging.WARNING)
    raw = given.raw or given.work / "raw"
    if not raw.exists():
        config = SimulateConfig(impressions=given.impressions, seed=given.seed, randomised_share=0.3)
        simulate.run(out=raw, config=config)
    job = Job(given.work, raw, STEPS)
    job.prepare()
    ablation = Ablation(job)
    results = {}
    for case, kept in cases(list(dict.fromkeys(map(group, ablation.document["features"])))).items():
        results[case] = ablation.run(kept)
        print(case, results[case]["randomised"]["model"], flush=True)
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
