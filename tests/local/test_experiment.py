"""The compiled pipeline of an online test, as a user runs it: from the command line, with a backend's executor inputs."""

import csv
import datetime as dt
import subprocess
import sys
from pathlib import Path

import pytest
from tritower import storage

ROOT = Path(__file__).parents[2]
START = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)


def run(folder: Path, *options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines", "run", "--local", "--pipeline", "experiment", "--backend-inputs"]
    command += [*map(str, options), "--root", str(folder / "root"), "--out", str(folder / "out")]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def write(path: Path, *, days: int = 14, columns: tuple[str, ...] = ("ts", "user_id", "arm", "clicked")) -> Path:
    """20 users an arm begin each day, and see 10 jobs then; 1 and 2 of these are clicked in turn, by the new ranker 2 and 3."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        for day in range(days):
            for number in range(20):
                for arm, least in (("today", 1), ("new", 2)):
                    when = START + dt.timedelta(days=day, minutes=number)
                    row = {"ts": when.isoformat(), "user_id": f"{arm}-{day}-{number}", "arm": arm}
                    writer.writerows(row | {"clicked": str(job < least + number % 2).lower()} for job in range(10))
    return path


def test_from_a_users_csv_to_the_claim_and_on_with_the_record(tmp_path: Path) -> None:
    shown, record = write(tmp_path / "shown.csv"), tmp_path / "record"
    options = ["--exposures", shown, "--record", record, "--set", "analyse.control=today", "--set", "analyse.treated=new"]
    options += ["--set", "analyse.planned_days=21"]
    done = run(tmp_path, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    # 1.5 and 2.5 of 10 jobs, on every day.
    claim = "You may stop: new is better, with 66.7% more clicks per impression by day 7"
    assert f"Claim: one may stop. {claim}" in done.stdout and "2/2" in done.stdout
    found = storage.read_json(tmp_path / "out" / "analysis.json")
    assert (found["uplift_pct"], found["units"], found["days"]) == (66.667, 560, 14)
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert claim in report and "<script" not in report
    looks = storage.read_json(record / "looks.json")["looks"]
    assert [(look["day"], look["uplift_pct"]) for look in looks] == [(7, 66.667), (14, 66.667)]

    (plan,) = (tmp_path / "root" / "artifacts").glob("*/plan/plan_metrics")
    plan_found = storage.read_json(plan)
    assert plan_found["cuped_saved_pct"] == 0 and plan_found["log_users"] == 280  # nobody comes twice; half of the days
    assert plan_found["mailings"] is None  # the log has no requests

    changed = run(tmp_path, *options, "--without", "plan", "--set", "analyse.planned_days=14")
    assert changed.returncode == 1
    assert "planned_days is 14, and was 21 at the first look (day 7)" in changed.stderr and "looks.json" in changed.stderr


def test_a_missing_column_is_named_with_its_file_and_the_remedy(tmp_path: Path) -> None:
    shown = write(tmp_path / "shown.csv", days=1, columns=("ts", "user_id", "clicked"))
    done = run(tmp_path, "--exposures", shown, "--without", "plan")
    assert done.returncode == 1
    assert f"analyse: SchemaError: the column 'arm' is missing (in exposures: {shown})" in done.stderr
    assert "There are: clicked, ts, user_id" in done.stderr


def test_exposures_are_needed_unless_they_are_simulated(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 2
    assert "the following arguments are required: --exposures/--data-exposures" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("faults", "claim", "words"),
    [
        ({"wrong_hash": 0.03}, "do not trust this test", "have another arm than the hash of 'test' gives them"),
        ({"clock": 0.1}, "do not trust this test", "older than their exposures: clocks differ"),
        (
            {"bots": 12, "twice": 0.05, "unassigned": 0.03},
            "one may stop",
            "0 of control, 12 of treated; that is no chance|exposures came more than once|exposures have no arm",
        ),
    ],
)
def test_what_is_wrong_with_a_log_is_named_in_the_report(
    faults: dict[str, float], claim: str, words: str, tmp_path: Path
) -> None:
    options = ["--with", "simulate", "--without", "plan", "--set", "simulate.users=3000", "--set", "simulate.days=8"]
    options += ["--set", "simulate.habits.effect=1.0", "--set", "analyse.salt=test", "--set", "analyse.planned_days=7"]
    for name, value in faults.items():
        options += ["--set", f"simulate.faults.{name}={value}"]
    done = run(tmp_path, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Claim: {claim}." in done.stdout
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8").replace("&#39;", "'")
    for one in words.split("|"):
        assert one in report


@pytest.mark.slow
def test_a_try_without_data(tmp_path: Path) -> None:
    done = run(tmp_path, "--with", "simulate", "--set", "simulate.users=4000", "--set", "simulate.habits.effect=0.0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3/3" in done.stdout and storage.read_json(tmp_path / "out" / "analysis.json")["days"] == 42
