"""A test that is analysed again and again: each look is taken once, and stays as it was seen."""

import datetime as dt
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tritower.config import from_dict
from tritower.errors import ArtifactError, ConfigError, DataError
from tritower.experiment import record, simulated_log, step
from tritower.experiment.config import AnalysisConfig, Faults, Habits
from tritower.experiment.simulated_log import START_US
from tritower.experiment.sums import DAY_US

WHOLE = {"start": "2026-01-01T00:00:00Z", "planned_days": 21, "cap_quantile": 1.0}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A test of 21 days whose uplift of 12 % shows late."""
    folder = tmp_path_factory.mktemp("test") / "log"
    simulated_log.write(folder, users=1500, days=21, seed=3, habits=Habits(effect=0.12, click_spread=40))
    return folder


def until(log: Path, day: float, to: Path) -> Path:
    """The exposures of the first days, as a folder has them at that moment."""
    shown = pq.read_table(log / "shown.parquet")
    to.mkdir(exist_ok=True)
    limit = pa.scalar(START_US + int(day * DAY_US), pa.timestamp("us", tz="UTC"))
    pq.write_table(shown.filter(pc.less(shown["ts"], limit)), to / "shown.parquet")
    return to


def run(shown: Path, root: Path, day: float, **knobs: Any) -> dict[str, Any]:
    return step.analyse(
        shown=shown,
        config=from_dict(AnalysisConfig, WHOLE | knobs),
        root=str(root),
        run=f"day {day:g}",
        now_us=START_US + int(day * DAY_US),
    )


def looks(root: Path) -> dict[int, str]:
    """Day of a look -> the run that took it."""
    found, _ = record.read(str(root))
    assert found
    return {seen.day: seen.run for seen in found.looks}


def test_a_run_every_few_days_takes_each_look_once_when_its_clicks_have_come(log: Path, tmp_path: Path) -> None:
    root, shown = tmp_path / "record", tmp_path / "shown"
    taken = []
    for day in (3, 7.5, 8.1, 9, 13, 17, 21.5):
        run(until(log, day, shown), root, day)
        taken.append(looks(root))
    first = {7: "day 8.1"}  # a click counts within a day: at 7.5 some of day 7 are still to come
    assert taken == [{}, {}, first, first, first, first | {14: "day 17"}, first | {14: "day 17"}]
    whole = run(log / "shown.parquet", root, 22)
    assert looks(root) == first | {14: "day 17", 21: "day 22"}
    # No row was late: all looks together say what one analysis of the whole says.
    alone = step.analyse(shown=log / "shown.parquet", config=from_dict(AnalysisConfig, WHOLE))
    assert {**whole, "sentence": ""} == {**alone, "sentence": ""} and whole["sentence"] == alone["sentence"]
    # Nor is there another look when the planned days are over, and a run that is tried again changes nothing.
    before = (root / record.FILE).read_bytes()
    assert run(log / "shown.parquet", root, 22) == whole
    run(log / "shown.parquet", root, 30)
    assert (root / record.FILE).read_bytes() == before


def test_late_rows_do_not_look_again(log: Path, tmp_path: Path) -> None:
    root, shown = tmp_path / "record", until(log, 9, tmp_path / "shown")
    before = run(shown, root, 9)
    assert before["claim"] == "go on" and looks(root) == {7: "day 9"}
    table = pq.read_table(shown / "shown.parquet")
    treated = pc.and_(pc.equal(table["arm"], "treated"), pc.invert(table["clicked"]))
    late = table.filter(treated)
    clicked = late.set_column(late.schema.get_field_index("clicked"), "clicked", pa.array([True] * len(late)))
    clicked = clicked.set_column(clicked.schema.get_field_index("clicked_at"), "clicked_at", clicked["ts"])
    rows = pa.concat_tables([table.filter(pc.invert(treated)), clicked.slice(0, len(clicked) // 3), late.slice(len(late) // 3)])
    pq.write_table(rows, shown / "shown.parquet")
    assert step.analyse(shown=shown, config=from_dict(AnalysisConfig, WHOLE))["claim"] == "one may stop"  # nothing remembered
    after = run(shown, root, 9.1)
    assert after["claim"] == "go on" and after["uplift_pct"] > before["uplift_pct"] + 50


def test_what_was_planned_holds_from_the_first_look_on(log: Path, tmp_path: Path) -> None:
    root, shown = tmp_path / "record", tmp_path / "shown"
    run(until(log, 3, shown), root, 3)
    run(shown, root, 3, planned_days=28)  # nothing was seen yet
    run(until(log, 9, shown), root, 9, planned_days=28)
    before = (root / record.FILE).read_bytes()
    with pytest.raises(ConfigError, match=r"planned_days is 14, and was 28 at the first look \(day 7\)") as caught:
        run(shown, root, 9, planned_days=14)
    assert caught.value.where == str(root / record.FILE) and "a new root for a new test" in caught.value.remedy
    run(shown, root, 9, planned_days=28, segments=["country"])  # that is no part of it
    assert (root / record.FILE).read_bytes() == before


def test_the_start_is_kept_and_lost_exposures_are_found(log: Path, tmp_path: Path) -> None:
    root, shown = tmp_path / "record", until(log, 9, tmp_path / "shown")
    run(shown, root, 9, start="")
    found, _ = record.read(str(root))
    table = pq.read_table(shown / "shown.parquet")
    assert found and found.start_us == pc.min(table["ts"]).as_py().timestamp() * 1e6
    rolled = table.filter(pc.greater(table["ts"], pa.scalar(dt.datetime(2026, 1, 4, tzinfo=dt.UTC), table["ts"].type)))
    pq.write_table(rolled, shown / "shown.parquet")
    with pytest.raises(DataError, match=r"begin at 2026-01-04.* began at 2026-01-01.*all exposures since the start"):
        run(shown, root, 10, start="")
    # A few rows of the first hours may go, as when a user asks to be forgotten.
    pq.write_table(table.slice(20), shown / "shown.parquet")
    run(shown, root, 10, start="")
    assert record.read(str(root))[0] == found


def test_a_test_that_is_not_believed_takes_no_look(tmp_path: Path) -> None:
    simulated_log.write(tmp_path / "log", users=1000, days=9, seed=1, faults=Faults(mixed=0.1))
    assert run(tmp_path / "log" / "shown.parquet", tmp_path / "record", 11)["claim"] == "do not trust this test"
    assert looks(tmp_path / "record") == {}


def test_two_runs_at_one_time_see_the_same_looks(log: Path, tmp_path: Path) -> None:
    done: list[dict[str, Any]] = []
    threads = [
        threading.Thread(target=lambda day=day: done.append(run(log / "shown.parquet", tmp_path, day)), daemon=True)
        for day in (22.0, 22.5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 2 and done[0] == done[1]
    assert looks(tmp_path).keys() == {7, 14, 21} and len(set(looks(tmp_path).values())) == 1


@pytest.mark.parametrize("text", ["", "[]", '{"format": 2}', '{"format": 1, "plan": {}, "looks": [{"day": "x"}]}'])
def test_a_record_that_cannot_be_read(text: str, tmp_path: Path) -> None:
    (tmp_path / record.FILE).write_text(text)
    with pytest.raises(ArtifactError, match="record of the looks cannot be read") as caught:
        record.read(str(tmp_path))
    assert record.FILE in caught.value.where
