"""Facts of a generated log, and click rate by position as SVG: `python tests/bench/simulate_facts.py LOG [figure.svg]`."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score
from tritower.simulate.lexicon import words
from tritower.simulate.relevance import examination
from tritower.simulate.truth import open_world


def main(place: Path, figure: Path | None) -> None:
    """Print the facts as JSON and draw the figure."""
    rows = pd.concat([pd.read_parquet(place / "impressions"), pd.read_parquet(place / "truth")[["relevance"]]], axis=1)
    jobs = pd.read_parquet(place / "jobs.parquet")
    rows = rows.merge(jobs[["job_id", "title", "city", "region"]], on="job_id", suffixes=("", "_job"))
    fair = rows[rows.randomised]
    print(json.dumps(facts(rows, fair), indent=2))
    if figure:
        draw(rows, open_world(place).config.examination_decay, figure)


def facts(rows: pd.DataFrame, fair: pd.DataFrame) -> dict[str, float]:
    """Rates and areas under the ROC curve; the latter on the randomised slice, where position hides nothing."""
    named = fair[fair["query"] != ""]
    pairs = zip(named["query"], named.title, strict=True)
    shared = np.array([len(set(words(q)) & set(words(t))) for q, t in pairs])
    near = 1.0 * (fair.region == fair.region_job) + 1.0 * ((fair.city == fair.city_job) & (fair.region == fair.region_job))
    return {
        "click rate": round(rows.clicked.mean(), 4),
        "click rate, randomised": round(fair.clicked.mean(), 4),
        "AUC of the truth, randomised": round(roc_auc_score(fair.clicked, fair.relevance), 3),
        "AUC of shared words, randomised": round(roc_auc_score(named.clicked, shared), 3),
        "AUC of nearness, randomised": round(roc_auc_score(fair.clicked, near), 3),
        "clicks that share no word with the search, randomised": round(
            float((shared[named.clicked.to_numpy()] == 0).mean()), 3
        ),
        "impressions that repeat a (user, job)": round(float(rows.duplicated(["user_id", "job_id"]).mean()), 3),
        "requests with the ts of another": round(
            float(rows.drop_duplicates("request_id").duplicated("ts", keep=False).mean()), 3
        ),
        "median seconds to the click": float((rows.clicked_at - rows.ts).dt.total_seconds().median()),
    }


def draw(rows: pd.DataFrame, decay: float, figure: Path) -> None:
    """Click rate by position, as ranked and in random order, beside the examination curve."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "tritower", "svg.fonttype": "none"})
    import matplotlib.pyplot as plt

    axes = plt.subplots(figsize=(6, 3.2), layout="constrained")[1]
    for randomised, label in ((False, "ranked by the board"), (True, "in random order")):
        rate = rows[rows.randomised == randomised].groupby("position").clicked.mean()
        axes.plot(rate.index, rate, marker="o", markersize=3, label=label)
    position = np.arange(1, rows.position.max() + 1)
    mean = rows[rows.randomised].relevance.mean()
    axes.plot(position, mean * examination(position, decay), linestyle="--", color="grey", label="examination x mean relevance")
    axes.set(xlabel="position", ylabel="clicks per impression", ylim=(0, None))
    axes.legend(frameon=False)
    plt.savefig(figure, metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2:] else None)
