"""An online test of many exposures, analysed: seconds and peak memory. `python tests/bench/online_scale.py [100000000]`.

Writes a log (`--folder`, about 35 bytes an exposure, deleted afterwards): six weeks of mails with five jobs each to
heavy-tailed users, ids of 32 letters, one exposure in a thousand twice, a fifth as many impressions from before the test,
unsubscribes. Then `step.analyse` reads it in a process of its own, with CUPED, a segment, a guardrail, the hash of the arms
and the report.

With `--obvious` the same uplift comes from a pandas groupby, too, in a process of its own: the two must agree.
Results: build/bench/online_scale.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tritower.assignment import fraction
from tritower.experiment.config import AnalysisConfig, Guardrail
from tritower.experiment.simulated_log import START_US
from tritower.experiment.sums import DAY_US

OUT = Path("build/bench/online_scale.json")
DAYS, PAST_DAYS, JOBS, SALT = 42, 28, 5, "scale"
CONFIG = AnalysisConfig(
    start="2026-01-01T00:00:00Z", salt=SALT, segments=("country",), guardrails=(Guardrail(name="unsubscribe", margin=0.5),)
)
_PLACES = list(range(JOBS))
_ROWS = f"""
    SELECT request_id, 'job-' || ((first + 7 * place) % 50000) AS job_id, make_timestamptz(ts) AS ts, unit, arm,
        clicks & (1 << place) > 0 AS clicked, country,
        CASE WHEN clicked THEN make_timestamptz(ts + 60000000 * (1 + place)) END AS clicked_at
    FROM (SELECT *, hash(mail, day) % 50000 AS first, md5(concat(day, '-', mail)) AS request_id, 'user-' || user AS unit,
        unnest(CASE WHEN hash(mail, day) % 1000 = 0 THEN {_PLACES * 2} ELSE {_PLACES} END) AS place FROM mails)"""
"""The jobs of a mail; every thousandth mail is logged twice."""


def made(folder: Path, rows: int, seed: int = 0) -> None:
    """Write shown/, past/ and events.parquet, a day at a time."""
    random, users = np.random.default_rng(seed), max(1_000, rows // 40)
    share_U = random.lognormal(0, 1.3, users).cumsum()
    share_U /= share_U[-1]
    inclined_U = random.beta(0.36, 5.64, users)
    treated_U = np.fromiter((fraction(f"user-{user}", SALT) >= 0.5 for user in range(users)), np.bool_, users)
    for name in ("shown", "past"):
        (folder / name).mkdir()
    for day in range(-PAST_DAYS, DAYS):
        mails = rows // JOBS // DAYS if day >= 0 else rows // JOBS // 5 // PAST_DAYS
        user_M = np.searchsorted(share_U, random.random(mails))
        click_M = inclined_U[user_M] * np.where(treated_U[user_M] & (day >= 0), 1.086, 1.0)
        clicks_M = sum((random.random(mails) < click_M).astype(np.int64) << place for place in range(JOBS))
        ts_M = START_US + day * DAY_US + np.sort(random.integers(0, DAY_US, mails))
        columns = {"mail": np.arange(mails), "user": user_M, "clicks": clicks_M, "ts": ts_M}
        table = pa.table(columns | {"day": np.full(mails, day), "arm": np.where(treated_U[user_M], "treated", "control")})
        table = table.append_column("country", pa.array(np.where(user_M % 3 == 0, "US", "CA")))
        with duckdb.connect(config={"memory_limit": "2GiB", "temp_directory": str(folder)}) as connection:
            connection.execute("SET TimeZone = 'UTC'").register("mails", table)
            name = "shown" if day >= 0 else "past"
            columns = "*" if day >= 0 else "* EXCLUDE (arm)"
            file = folder / name / f"day-{day + PAST_DAYS:02}.parquet"
            connection.execute(f"COPY (SELECT {columns} FROM ({_ROWS})) TO '{file}' (FORMAT parquet)")
    left = np.flatnonzero(random.random(users) < 0.02)
    ts_L = pa.array(START_US + random.integers(0, DAYS * DAY_US, len(left)), pa.timestamp("us", "UTC"))
    units = [f"user-{user}" for user in left]
    events = pa.table({"unit": units, "name": ["unsubscribe"] * len(left), "ts": ts_L})
    pq.write_table(events, folder / "events.parquet")


def ours(folder: Path) -> dict[str, Any]:
    """The analysis, as the command runs it."""
    from tritower.experiment import step

    found = step.analyse(
        shown=folder / "shown", past=folder / "past", events=folder / "events.parquet", config=CONFIG,
        report=folder / "report.html", figures=folder / "figures.json",
    )  # fmt: skip
    figures = json.loads((folder / "figures.json").read_text())
    return {"sentence": found["sentence"], "units": found["units"], "uplift": figures["result"]["plain"]["relative"],
            "error": figures["result"]["plain"]["log_error"]}  # fmt: skip


def obvious(folder: Path) -> dict[str, Any]:
    """The plain uplift and its error by pandas: all rows in memory, duplicates dropped, grouped by user."""
    import pandas as pd

    columns = ["request_id", "job_id", "ts", "unit", "arm", "clicked", "clicked_at"]
    shown = pd.read_parquet(folder / "shown", columns=columns).drop_duplicates(["request_id", "job_id"])
    shown["x"] = (shown["clicked"] & (shown["clicked_at"] - shown["ts"] <= pd.Timedelta(hours=24))).astype(float)
    user = shown.groupby(["arm", "unit"]).agg(x=("x", "sum"), y=("x", "size")).reset_index()
    weight = np.minimum(1.0, user["y"].quantile(CONFIG.cap_quantile) / user["y"])
    user["x"], user["y"] = user["x"] * weight, user["y"] * weight
    found = {}
    for arm, part in user.groupby("arm"):
        rate = part["x"].mean() / part["y"].mean()
        found[arm] = rate, (part["x"] - rate * part["y"]).var() / len(part) / part["y"].mean() ** 2
    (control, spread), (treated, wider) = found["control"], found["treated"]
    error = (spread / control**2 + wider / treated**2) ** 0.5
    return {"units": len(user), "uplift": treated / control - 1, "error": float(error)}


def measured(way: str, folder: Path) -> dict[str, Any]:
    """One way in a process of its own: what it found, seconds, CPU seconds, peak MiB of its memory."""
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, __file__, "--one", way, "--folder", str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    text = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{way} ended with {os.waitstatus_to_exitcode(status)}")
    spent = {"seconds": time.monotonic() - start, "cpu_s": used.ru_utime + used.ru_stime, "peak_mib": used.ru_maxrss / 1024}
    return json.loads(text.splitlines()[-1]) | spent


def _said(found: dict[str, Any], rows: int) -> str:
    return (
        f"{found['seconds']:.0f} s ({found['cpu_s']:.0f} of CPU), {rows / found['seconds']:,.0f} rows/s, at most "
        f"{found['peak_mib']:,.0f} MiB; {found['units']:,} units, uplift {found['uplift']:+.3%}"
    )


def main() -> None:
    """Make, analyse, compare, delete."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=int, nargs="?", default=100_000_000, help="exposures (100000000)")
    parser.add_argument("--obvious", action="store_true", help="with pandas as well; it needs some 400 bytes an exposure")
    parser.add_argument("--folder", type=Path, help="where the log is written; a temporary one by default")
    parser.add_argument("--one", choices=("ours", "obvious"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps({"ours": ours, "obvious": obvious}[given.one](given.folder)))
        return
    with tempfile.TemporaryDirectory(prefix="online-scale-", dir=given.folder) as name:
        folder, start = Path(name), time.monotonic()
        made(folder, given.rows)
        size = sum(file.stat().st_size for file in folder.rglob("*.parquet"))
        print(f"{given.rows:,} exposures, {size / 1e9:.1f} GB, written in {time.monotonic() - start:.0f} s", flush=True)
        results = {"rows": given.rows, "bytes": size, "load": os.getloadavg()[0]}
        for way in ("ours", "obvious")[: 1 + given.obvious]:
            results[way] = measured(way, folder)
            print(way, _said(results[way], given.rows), flush=True)
    if given.obvious:
        mine, theirs = results["ours"], results["obvious"]
        apart = abs(mine["uplift"] - theirs["uplift"])
        ratios = [theirs[name] / mine[name] for name in ("seconds", "cpu_s", "peak_mib")]
        print(
            "pandas over ours: {:.2f} of the time, {:.2f} of the CPU, {:.1f} of the memory".format(*ratios),
            f"({apart:.0e} apart)",
        )
        assert apart < 1e-9 and abs(mine["error"] - theirs["error"]) < 1e-9
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
