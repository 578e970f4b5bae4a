"""What each option of the ranker is worth: `python tests/bench/ranker_options.py --work DIR`.

For each seed a log is simulated, and ingest, embed (stock encoder), entities and features run once. Then one network is trained
with the defaults and one with each option, and all are judged on clicks that are drawn anew from the true relevance of the
randomised test searches. Prints a Markdown table: means over the seeds, and the change of AUC and mAP@1 against the
defaults with its standard error over seeds. Finished parts are taken from DIR. About 10 CPU-minutes per seed.
"""

import argparse
import json
import logging
import math
import statistics
from pathlib import Path
from typing import Any

from steps import Job
from tritower import logs
from tritower.evaluation import step as evaluation
from tritower.evaluation.config import EvaluationConfig
from tritower.ranker import step as ranker
from tritower.ranker.config import RankerConfig
from tritower.simulate import step as simulate
from tritower.simulate.config import SimulateConfig

METRICS = ("auc", "map@1", "map@3", "log_loss")
OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "three members": {"members": 3},
    "three members, distilled into one": {"members": 3, "distil": True},
    "no descriptions": {"descriptions": False},
    "no occupation task": {"occupation_classes": 0},
    "text_scale 1": {"text_scale": 1.0},
    "text towers (256,)": {"query_tower": [256], "document_tower": [256]},
    "text towers (256, 128)": {"query_tower": [256, 128], "document_tower": [256, 128]},
    "no cross layers": {"cross_layers": 0},
    "position none": {"position": "none"},
    "no moving average": {"average": 0.0},
}


def prepared(folder: Path, impressions: int, seed: int) -> Job:
    """A log with its features."""
    raw = folder / "raw"
    if not raw.exists():
        simulate.run(out=raw, config=SimulateConfig(impressions=impressions, seed=seed, randomised_share=0.3))
    job = Job(folder, raw, {})
    job.prepare()
    return job


def judged(job: Job, name: str, knobs: dict[str, Any]) -> dict[str, float]:
    """Train one option and measure it on redrawn clicks."""
    folder = job.folder / "options" / name.replace(" ", "_").replace(",", "")
    done = folder / "figures.json"
    if not done.exists():
        read = {"features": job.folder / "features", "embeddings": job.folder / "embeddings"}
        config = Job(job.folder, job.raw, {"ranker": {"members": 1, **knobs}}).config("ranker", RankerConfig)
        numbers = ranker.train(**read, model=folder / "model", scores=folder / "scores", config=config)
        evaluation.run(
            dataset=job.folder / "dataset", features=job.folder / "features", scores=folder / "scores",
            scores_baseline=folder / "scores", scores_baseline_cos=folder / "scores", truth=str(job.raw / "truth"),
            metrics=folder / "metrics.json", config=job.config("evaluation", EvaluationConfig),
        )  # fmt: skip
        redrawn = json.loads((folder / "metrics.json").read_text())["redrawn"]
        figures = {metric: redrawn["model"][metric] for metric in METRICS}
        done.write_text(json.dumps({**figures, "cpu_seconds": numbers["train_cpu_seconds"]}))
    result: dict[str, float] = json.loads(done.read_text())
    return result


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """Markdown: one row per option."""
    first = results["defaults"]

    def change(parts: list[dict[str, float]], metric: str) -> str:
        differences = [one[metric] - base[metric] for one, base in zip(parts, first, strict=True)]
        if parts is first:
            return ""
        error = statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else math.nan
        return f"{statistics.mean(differences):+.4f} +- {error:.4f}"

    head = ["option", "AUC / mAP@1 / mAP@3", "change of AUC", "change of mAP@1", "log loss", "CPU s"]
    lines = [head, ["---"] * len(head)]
    for name, parts in results.items():
        means = {metric: statistics.mean(part[metric] for part in parts) for metric in (*METRICS, "cpu_seconds")}
        figures = " / ".join(f"{means[metric]:.4f}" for metric in METRICS[:3])
        changes = [change(parts, "auc"), change(parts, "map@1")]
        lines.append([name, figures, *changes, f"{means['log_loss']:.4f}", f"{means['cpu_seconds']:.0f}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Parse the command line, run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for everything that is made")
    parser.add_argument("--impressions", type=int, default=200_000)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--options", default="", help="names separated by ';' (all)")
    given = parser.parse_args()
    logs.setup()
    logging.getLogger("tritower").setLevel(logging.WARNING)
    names = ["defaults", *given.options.split(";")] if given.options else list(OPTIONS)
    jobs = [prepared(given.work / f"seed{seed}", given.impressions, int(seed)) for seed in given.seeds.split(",")]
    results = {}
    for name in names:
        results[name] = [judged(job, name, OPTIONS[name]) for job in jobs]
        print(name, results[name], flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
