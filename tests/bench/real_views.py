"""The triple tower against XGBoost on real job views: `python tests/bench/real_views.py --source DIR`.

DIR holds job_views.parquet, jobs.parquet, positions_of_interest.parquet and experience.parquet. Such a log tells what was
viewed, not what was shown: ingest draws nine jobs beside each view. Wanted titles written before a view are its query. Nothing
of the data is kept: everything is written to a temporary folder unless --work names one.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from steps import VARIANTS, Job
from tritower import logs

METRICS = ("auc", "map@1", "map@3")


def convert(source: Path, raw: Path) -> None:
    """The source's tables as jobs, views and users in tritower's own columns."""
    views = pd.read_parquet(source / "job_views.parquet").sort_values("view_start").drop_duplicates(["user_id", "job_id"])
    wanted = pd.read_parquet(source / "positions_of_interest.parquet").dropna(subset="query").sort_values("created_at")
    held = pd.read_parquet(source / "experience.parquet").sort_values("created_at")
    jobs = pd.read_parquet(source / "jobs.parquet").drop_duplicates("job_id")
    raw.mkdir(parents=True)
    text = {"job_id": jobs.job_id.astype(str), "title": jobs.title, "company": jobs.company.fillna("unknown")}
    place = {"city": jobs.city, "region": jobs.state_code, "country": "US"}
    pd.DataFrame({**text, **place}).to_parquet(raw / "jobs.parquet", index=False)

    views = views.reset_index(drop=True)
    latest = pd.merge_asof(views, wanted, left_on="view_start", right_on="created_at", by="user_id")  # written before the view
    shown = {"request_id": "v" + views.index.astype(str), "ts": views.view_start, "user_id": views.user_id.astype(str)}
    pd.DataFrame({**shown, "query": latest["query"].fillna(""), "job_id": views.job_id.astype(str)}).to_parquet(
        raw / "impressions.parquet", index=False
    )

    first = views.groupby("user_id").view_start.min().rename("first")  # a profile counts if it was there before any view
    users = pd.DataFrame(index=first.index)
    for name, table, column in (("interests", wanted, "query"), ("past_titles", held.dropna(subset="title"), "title")):
        known = table.merge(first, on="user_id").query("created_at < first")
        users[name] = known.groupby("user_id")[column].agg(lambda values: list(dict.fromkeys(values)))
        users[name] = users[name].map(lambda value: value if isinstance(value, list) else [])
    home = held.merge(first, on="user_id").query("created_at < first").dropna(subset="city")
    home = home.sort_values("start_date", na_position="first").groupby("user_id").last()
    users["city"], users["region"], users["country"] = home.city, home.state_code, "US"
    users.reset_index().assign(user_id=lambda table: table.user_id.astype(str)).to_parquet(raw / "users.parquet", index=False)


def leave_out(features: Path) -> list[str]:
    """Take the counters of impressions out of the feature list; the names left out.

    Drawn rows are no impressions. They come from the views of the following week, so that a job is drawn for days before it
    is viewed: how long and how often it seems to have been shown tells its label (days since first shown alone: AUC .74).
    """
    file = features / "features.json"
    content = json.loads(file.read_text())
    names = [feature["name"] for feature in content["features"]]
    out = [n for n in names if n.endswith(("_impressions", "_ctr", "_ctr_decayed", "_coec")) or n == "job_first_shown_days"]
    content["features"] = [feature for feature in content["features"] if feature["name"] not in out]
    file.write_text(json.dumps(content, indent=1) + "\n")
    return out


def show(document: dict[str, Any]) -> None:
    """The metrics with intervals, and the lifts of the triple tower."""
    part = document[document["deciding"]]
    print(f"{part['requests']:,} test lists, {part['users']:,} users")
    for name in ("model", *VARIANTS):
        ends = [part["intervals"][name][metric] for metric in METRICS]
        figures = [f"{m} {e['value']:.3f} ({e['low']:.3f} to {e['high']:.3f})" for m, e in zip(METRICS, ends, strict=True)]
        print(f"{name:14s} " + "   ".join(figures))
    for name, key in zip(VARIANTS, ("lift", "lift_cos", "lift_full"), strict=True):
        ends = [part[key][metric] for metric in METRICS]
        lifts = [
            f"{m} {100 * e['value']:+.1f} % ({100 * e['low']:+.1f} to {100 * e['high']:+.1f})"
            for m, e in zip(METRICS, ends, strict=True)
        ]
        print(f"lift over {name:14s} " + "   ".join(lifts))


def main() -> None:
    """Parse the command line; convert, run every step, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--work", type=Path, help="keep the steps' outputs here, outside the repository")
    parser.add_argument("--config", type=json.loads, default={}, help='knobs per step, such as {"ranker": {"epochs": 4}}')
    given = parser.parse_args()
    logs.setup()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.work or Path(temporary)
        if not (folder / "raw").exists():
            convert(given.source, folder / "raw")
        job = Job(folder, folder / "raw", given.config)
        job.prepare()
        print("left out:", ", ".join(leave_out(folder / "features")) or "nothing more")
        job.rankers()
        show(job.judge())


if __name__ == "__main__":
    main()
