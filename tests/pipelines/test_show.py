"""What a reader sees: progress per step, tables, ranked jobs."""

import datetime as dt
import io

from pipelines import knobs, show
from pipelines.local import StepRun


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_without_and_with_a_terminal() -> None:
    steps = [
        StepRun(name="ingest", status="running"),
        StepRun(name="ingest", status="done", seconds=1.24, numbers={"impressions_out": 20000, "users_in": 1}),
        StepRun(name="embed", status="cached", numbers={"texts": 5.0, "dim": 384}, warnings=["one\x1b[31m", *"abcdef"]),
        StepRun(name="ranker", status="running"),
        StepRun(name="ranker", status="failed", seconds=61.0, numbers={"validation_auc": 0.5}),
    ]
    plain, terminal = io.StringIO(), Terminal()
    for stream in (plain, terminal):
        progress = show.Progress(3, stream)
        for step in steps:
            progress(step)
    assert plain.getvalue().splitlines() == [
        "   1/3 ingest                 1.2 s  impressions 20,000",
        "   2/3 embed                 cached  texts 5, dim 384",
        "        Warning: one [31m",
        *(f"        Warning: {letter}" for letter in "abcd"),
        "        2 more warnings: None",
        "   3/3 ranker                61.0 s  FAILED",
    ]
    assert "ranker              ..." in terminal.getvalue()
    assert terminal.getvalue().replace("\r\x1b[K", "\n").split("\n")[-2] == "   3/3 ranker                61.0 s  FAILED"


def test_results_show_what_there_is_and_a_dash_for_what_has_no_value() -> None:
    level = {"auc": 0.8, "map@1": 0.5, "map@3": None}
    lift = {"auc": {"value": 0.1, "low": -0.02, "high": 0.2}}
    none = {"value": None, "low": None, "high": None}
    text = show.results({"logged": {"model": level, "baseline": level, "lift": lift | {"map@1": none, "map@3": none}}})
    assert "random order" not in text and "best possible" not in text
    lines = [line.split() for line in text.splitlines()]
    assert ["triple", "tower", "0.8000", "0.5000", "-"] in lines
    assert ["over", "XGBoost", "+10.0%", "[-2.0%,", "+20.0%]", "-", "-"] in lines


def test_ranked_jobs() -> None:
    row = {
        "request": 4, "query": "nurse", "request_city": "Austin", "request_region": None, "user_id": "u1",
        "ts": dt.datetime(2026, 3, 1, 9, 30, tzinfo=dt.UTC), "rank": 1, "title": "Registered Nurse " * 4, "company": "Mercy",
        "city": None, "region": "TX", "score": 0.5,
    }  # fmt: skip
    text = show.ranked_jobs([row, row | {"rank": 2, "title": "Night Nurse"}, row | {"request": 5, "query": "cook"}])
    assert text.count('"nurse" in Austin (2026-03-01 09:30, u1)') == 1 and '"cook"' in text
    assert "Registered Nurse Registered Nurse Registere…" in text and "true" not in text
    text = show.ranked_jobs([row | {"true_probability": 0.25}, row | {"rank": 2, "true_probability": None}])
    assert text.splitlines()[1].split() == ["score", "true"]
    assert [line.split()[-2:] for line in text.splitlines()[2:]] == [["0.500", "0.250"], ["0.500", "-"]]


def test_the_preset_quick_says_that_its_figures_mean_nothing() -> None:
    remark = knobs.gather("quick")["evaluation"]["remark"]
    level = {"auc": 0.6, "map@1": 0.2, "map@3": 0.3}
    slice_ = {"model": level, "baseline": level, "requests": 9, "clicks": 9, "cannot_be_judged": "there are 9 searches"}
    slice_["lift"] = {metric: {"value": -0.17, "low": None, "high": None, "reason": "there are 9 searches"} for metric in level}
    lines = show.results({"logged": slice_, "notes": [remark], "warnings": ["one\x1b[2J", "two"]}).splitlines()
    assert lines[0] == "WARNING: one [2J" and lines[2] == "WARNING: two"
    assert lines[4].startswith("Note: Smoke test (preset quick)")
    assert lines[-1] == "  Cannot be judged: there are 9 searches." and lines[-2].split()[-2:] == ["-17.0%", "[?]"]
