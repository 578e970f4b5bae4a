"""Values that do not fit, in columns that need none: missing and counted, never a refused row; and the limit on clicks."""

import csv
import datetime
import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tritower.errors import QualityError
from tritower.ingest import step
from tritower.ingest.config import IngestConfig

from tests.support.ingest_log import Log, at

CASES = Path(__file__).parents[2] / "data" / "cases"
SUFFIXES = (".csv", ".jsonl", ".parquet")


def _run(case: str, impressions: str, out: Path, **knobs: Any) -> dict[str, Any]:
    folder = CASES / case
    uris = {"jobs": str(folder / "jobs.csv"), "impressions": str(folder / impressions), "users": ""}
    step.run(**uris, dataset=out, config=IngestConfig(threads=1, **knobs))
    measured: dict[str, Any] = json.loads((out / "quality.json").read_text())
    return measured


def _clicks(measured: dict[str, Any]) -> int:
    return sum(day["clicks"] for day in measured["days"])


def _fingerprint(out: Path) -> str:
    return str(json.loads((out / "dataset.json").read_text())["fingerprint"])


# (row, column, value, what it is counted as); rows 7, 13 and 19 are clicks.
BAD = [
    (0, "position", "first", "wrong_type"),
    (2, "position", "1.5", "wrong_type"),
    (3, "position", "40000", "wrong_type"),
    (4, "position", "0", "out_of_range"),
    (5, "position", "-1", "out_of_range"),
    (6, "position", "NULL", "none"),
    (8, "randomised", "maybe", "wrong_type"),
    (9, "city", "\\N", "none"),
    (7, "clicked_at", "soon", "wrong_type"),
    (13, "clicked_at", "01/02/2026", "ambiguous_time"),
    (14, "clicked_at", "9999-12-31", "none"),
    (15, "clicked_at", "1970-01-01T00:00:00+00:00", "none"),
    (19, "clicked_at", "2150-06-01", "none"),
]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_bad_optional_values_are_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str) -> None:
    log = Log(tmp_path, suffix)
    for row in log.impressions:
        row |= {"city": "Ames", "randomised": "false", "position": str(row["position"])}
        row["clicked_at"] = row["clicked_at"] and row["clicked_at"].isoformat()
    log.impressions[7]["clicked"] = log.impressions[13]["clicked"] = log.impressions[19]["clicked"] = True
    for number, column, value, _ in BAD:
        log.impressions[number][column] = value
    with caplog.at_level(logging.INFO):
        log.run(max_quarantined_share=0.0)
    assert log.reasons() == {}
    codes = [f"{column}.{what}" for _, column, _, what in BAD]
    assert log.mended() == {code: codes.count(code) for code in sorted(set(codes))}
    rows = log.shown()
    assert len(rows) == 60 and sum(row["clicked"] for row in rows) == 10
    assert {row["request"] * 3 + row["job"] for row in rows if row["position"] is None} == {0, 2, 3, 4, 5, 6}
    at_once = {row["request"] * 3 + row["job"] for row in rows if row["clicked"] and row["clicked_at"] == row["ts"]}
    assert at_once == {7, 13, 19}
    warned = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == len({code for code in codes if not code.endswith(".none")})
    assert (
        "impressions: position.out_of_range is taken for missing in 2 of 60 rows;"
        f" the first: position = '0' (impressions{suffix}, row 4 counted from 0)"
    ) in warned
    told = [record.message for record in caplog.records if "values mended" in record.message]
    assert len(told) == 1 and "city.none 1, clicked_at.ambiguous_time 1, clicked_at.none 3" in told[0]


def test_several_bad_values_of_a_row_and_their_examples(log: Log, tmp_path: Path) -> None:
    for row in log.impressions:
        row |= {"position": str(row["position"]), "country": "US"}
    log.impressions[3] |= {"position": "<b>top</b>", "country": "N/A"}
    log.impressions[9]["position"] = "top"
    log.jobs[0]["expires_at"] = datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC)
    log.run()
    assert log.mended() == {"country.none": 1, "position.wrong_type": 2}
    assert log.mended("jobs") == {"expires_at.none": 1}
    examples = json.loads((log.out / "quality.json").read_text())["examples"]
    assert examples["impressions"] == {
        "country.none": "country = 'N/A' (impressions.parquet, row 3 counted from 0)",
        "position.wrong_type": "position = '<b>top</b>' (impressions.parquet, row 3 counted from 0)",
    }
    assert log.table("jobs")[0]["expires_at"] is None
    uris = {name: str(tmp_path / f"{name}.parquet") for name in ("jobs", "impressions", "users")}
    step.run(**uris, dataset=tmp_path / "again", config=IngestConfig(threads=1), quality=tmp_path / "q.html")
    page = (tmp_path / "q.html").read_text()
    assert "position: wrong type" in page and "&lt;b&gt;top" in page and "<b>top" not in page


def test_a_job_has_both_coordinates_or_none(log: Log) -> None:
    point = {"latitude": 42.03, "longitude": -93.62}
    for row, given in zip(log.jobs, (point, point | {"longitude": None}, {"latitude": 0, "longitude": 0.0}), strict=True):
        row |= given
    more = ({"latitude": 0, "longitude": 9.5}, {"latitude": -90.1, "longitude": 9.5}, {"latitude": None, "longitude": None})
    for name, given in zip("def", more, strict=True):
        log.jobs.append({"job_id": name, "title": "Cook", "company": "Acme"} | given)
    log.run()
    found = [(row["latitude"], row["longitude"]) for row in log.table("jobs")]
    assert found == [(42.03, -93.62), (None, None), (None, None), (0.0, 9.5), (None, None), (None, None)]
    assert log.mended("jobs") == {
        "latitude.alone": 1, "latitude.none": 1, "latitude.out_of_range": 1, "longitude.alone": 1, "longitude.none": 1,
    }  # fmt: skip


def test_bad_lists_and_odd_types_are_missing(log: Log) -> None:
    """Columns of a type that can hold no such value at all."""
    table = pa.Table.from_pylist(log.impressions)
    table = table.append_column("city", pa.array([{"name": "Ames"}] * 60))
    table = table.set_column(table.column_names.index("position"), "position", pa.array([[1]] * 60))
    pq.write_table(table, log.folder / "odd.parquet")
    log.users[0]["interests"] = [{"title": "Nurse"}]
    log.users[1]["interests"] = None
    log.run(places={"impressions": str(log.folder / "odd.parquet")})
    assert log.mended() == {"city.not_text": 60, "position.wrong_type": 60}
    assert log.mended("users") == {"interests.wrong_type": 1}


def test_a_time_beyond_the_calendar_is_shown(log: Log) -> None:
    table = pa.Table.from_pylist(log.impressions)
    far = pa.array([253_402_300_799_000_000] * 2 + [1_767_225_600_000_000] * 58).cast(pa.timestamp("us", tz="Asia/Tokyo"))
    pq.write_table(table.set_column(1, "ts", far), log.folder / "far.parquet")
    with pytest.raises(
        QualityError, match=r"out_of_range 2; the first out_of_range: ts = '9999-12-31 23:59:59.*far.parquet, row 0"
    ):
        log.run(places={"impressions": str(log.folder / "far.parquet")}, max_quarantined_share=0.01)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rows_without_a_query_agree_in_every_format(tmp_path: Path, suffix: str) -> None:
    measured = _run("13_null_query", f"impressions{suffix}", tmp_path / "out")
    counted = measured["counts"]["impressions"]
    assert (counted["in"], counted["out"], counted["mended"]) == (461, 461, {"query.missing": 115})
    assert _clicks(measured) == 81
    _run("13_null_query", "impressions.csv", tmp_path / "csv")
    assert _fingerprint(tmp_path / "out") == _fingerprint(tmp_path / "csv")


def test_a_missing_click_mark_is_false_where_no_time_says_otherwise(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        (tmp_path / suffix).mkdir()
        log = Log(tmp_path / suffix, suffix)
        for number, row in enumerate(log.impressions):
            row["clicked"] = None if not row["clicked"] or number % 4 == 0 else True
        log.run(max_quarantined_share=0.0)
        assert sum(row["clicked"] for row in log.shown()) == 10
        unmarked = sum(row["clicked"] is None for row in log.impressions)
        assert log.mended() == {"clicked.missing": unmarked} and unmarked == 50


def test_a_log_where_no_row_says_whether_it_was_clicked(tmp_path: Path) -> None:
    log = Log(tmp_path, ".csv")
    for row in log.impressions:
        row["clicked"] = row["clicked_at"] = None
    with pytest.raises(QualityError, match=r"no row has a value in the column 'clicked'.*leave the column out"):
        log.run()


@pytest.mark.parametrize("name", ["float_seconds.jsonl", "nanoseconds.csv", "postgres_copy.csv"])
def test_times_as_databases_write_them(tmp_path: Path, name: str) -> None:
    measured = _run("11_times_refused", name, tmp_path / "out", max_quarantined_share=0.0)
    assert measured["counts"]["impressions"]["out"] == 461
    assert (_clicks(measured), measured["counts"]["impressions"]["mended"]) == (81, {})
    first = pq.read_table(tmp_path / "out/requests.parquet")["ts"][0].as_py()
    quarter = 250_000 if name.startswith("float") else 0
    assert first == datetime.datetime(2026, 1, 5, 0, 0, 54, quarter, tzinfo=datetime.UTC)


def test_an_unclear_time_is_named_with_its_row(tmp_path: Path) -> None:
    log = Log(tmp_path, ".csv")
    for row in log.impressions[20:]:
        row["ts"] = row["ts"].strftime("%m/%d/%Y %H:%M")
    with pytest.raises(
        QualityError, match=r"66.7% of the rows .*ambiguous_time 40; .*ts = '01/01/2026 06:00' .*row 20"
    ) as told:
        log.run(max_quarantined_share=0.05)
    assert "2026-01-31T12:00:00Z" in str(told.value)


def test_a_clock_that_is_slightly_behind(tmp_path: Path) -> None:
    measured = _run("05_clock_skew", "impressions.parquet", tmp_path / "out", max_quarantined_share=0.0)
    assert measured["counts"]["impressions"]["mended"] == {"clicked_at.early": 171}
    assert _clicks(measured) == 171
    rows = pq.read_table(sorted((tmp_path / "out/impressions").rglob("*.parquet"))[0]).to_pylist()
    assert all(row["clicked_at"] == row["ts"] for row in rows if row["clicked"])


def test_the_limit_looks_at_clicks(tmp_path: Path) -> None:
    with pytest.raises(
        QualityError, match=r"100.0% of the clicks were refused, at most 5.0% .*: click_before_impression 171; "
    ) as told:
        _run("05_clock_skew", "impressions.parquet", tmp_path / "out", max_click_skew_s=0.3)
    assert "max_click_skew_s (0.3 s)" in str(told.value) and "impressions.parquet, row " in str(told.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("seconds", "kept"), [(0.0, 10), (15.9, 10), (16.0, 10), (16.1, 9), (3600.0, 9)])
def test_how_early_a_click_may_be(log: Log, seconds: float, kept: int) -> None:
    row = next(row for row in log.impressions if row["clicked"])
    row["clicked_at"] = row["ts"] - datetime.timedelta(seconds=seconds)
    log.run()
    assert sum(row["clicked"] for row in log.shown()) == kept
    counts = json.loads((log.out / "quality.json").read_text())["counts"]["impressions"]
    assert (counts["clicks"], counts["clicks_quarantined"]) == (10, 10 - kept)
    assert all(row["clicked_at"] >= row["ts"] for row in log.shown() if row["clicked"])


def test_click_times_without_a_click_count_as_clicks_lost(log: Log) -> None:
    for row in log.impressions:
        row["clicked"] = False
    with pytest.raises(QualityError, match=r"100.0% of the clicks were refused.*click_time_without_click 10"):
        log.run(max_quarantined_share=0.2)


def test_sentinels_in_required_columns_are_missing_values(tmp_path: Path) -> None:
    log = Log(tmp_path, ".csv")
    log.impressions[3]["ts"] = "\\N"
    log.impressions[4]["user_id"] = "NULL"
    log.impressions[5]["ts"] = "1970-01-01"
    log.jobs.append({"job_id": "nan", "title": "T", "company": "C"})
    log.jobs.append({"job_id": "e", "title": "-", "company": "N/A"})
    log.jobs.append({"job_id": "f", "title": "T", "company": "N/A"})
    log.run()
    assert log.reasons() == {
        ("impressions.csv", 3): "missing_value",
        ("impressions.csv", 4): "missing_value",
        ("impressions.csv", 5): "out_of_range",
        ("jobs.csv", 3): "missing_value",
        ("jobs.csv", 4): "missing_value",
    }
    assert log.table("jobs")[-1]["company"] == ""
    assert log.mended("jobs") == {"company.missing": 1}


def test_words_a_person_may_have_typed_stay_queries(tmp_path: Path) -> None:
    log = Log(tmp_path, ".csv")
    for row, query in zip(log.impressions[::3], ["none", "-", "na", "NULL", "\\N"], strict=False):
        for same in log.impressions:
            if same["request_id"] == row["request_id"]:
                same["query"] = query
    log.run()
    texts = log.table("texts")
    queries = [texts[request["query_text"]]["value"] for request in log.table("requests")[:5]]
    assert queries == ["none", "-", "na", "", ""]


def test_csv_of_pandas_with_gaps(tmp_path: Path) -> None:
    """Whole numbers that became floats: positions, marks and ids."""
    log = Log(tmp_path, ".csv")
    numbers = {"a": 101, "b": 102, "c": 103}
    log.jobs = [row | {"job_id": numbers[row["job_id"]]} for row in log.jobs]
    for row in log.impressions:
        row |= {"job_id": float(numbers[row["job_id"]]), "position": float(row["position"]), "clicked": float(row["clicked"])}
    log.run(max_quarantined_share=0.0)
    assert len(log.shown()) == 60 and [row["job_id"] for row in log.table("jobs")] == ["101", "102", "103"]
    assert {row["position"] for row in log.shown()} == {1, 2, 3}
    with (tmp_path / "impressions.csv").open() as file:
        assert next(csv.DictReader(file))["job_id"] == "101.0"


def test_clicks_of_a_day_only_are_named(log: Log) -> None:
    """A click's date without its time lies hours before the impression: which hour is lost, and nobody guesses it."""
    for row in log.impressions:
        row["clicked_at"] = row["clicked_at"] and at(0).date().isoformat()
    with pytest.raises(QualityError, match=r"of the clicks were refused.*click_before_impression"):
        log.run(max_quarantined_share=0.5)
