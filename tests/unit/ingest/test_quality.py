"""The data-quality report and its limits."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tritower.errors import QualityError
from tritower.ingest import step
from tritower.ingest.config import IngestConfig

from tests.support.ingest_log import Log, at, save


def _quality(log: Log) -> dict[str, Any]:
    measured: dict[str, Any] = json.loads((log.out / "quality.json").read_text())
    return measured


def _later(log: Log, previous: Path) -> str:
    """Move the first run's dataset aside and give its place."""
    log.out.rename(previous)
    return str(previous)


def test_measures_by_hand(log: Log) -> None:
    log.impressions.append(dict(log.impressions[0]))
    log.impressions.append(log.impressions[1] | {"job_id": "gone"})
    log.run()
    measured = _quality(log)
    assert measured["counts"]["impressions"]["reasons"] == {"unknown_job": 1}
    assert measured["missing"]["jobs"]["city"] == pytest.approx(1 / 3)
    assert measured["missing"]["impressions"]["clicked_at"] == pytest.approx(51 / 62)
    assert measured["missing"]["impressions"]["region"] == 1.0
    # Requests 0 to 19 at hours 0 to 19, then the same day: ten clicks on sixty rows.
    assert measured["days"] == [{"day": "2026-01-01", "impressions": 60, "clicks": 10, "requests": 20}]
    assert measured["companies"] == 2
    assert [f["is_beyond"] for f in measured["findings"]] == [False, False, False]


def test_days_are_cut_at_midnight_utc(log: Log) -> None:
    for row in log.impressions:
        if row["request_id"] == "r019":
            row["ts"], row["clicked_at"] = at(24), None
    log.run()
    assert [day["day"] for day in _quality(log)["days"]] == ["2026-01-01", "2026-01-02"]
    assert [day["requests"] for day in _quality(log)["days"]] == [19, 1]


@pytest.mark.parametrize(
    ("change", "knob", "message"),
    [
        ("missing", {"max_missing_rise": 0.5}, r"impressions: position missing 100.0% \(at most 50.0% more\)"),
        ("clicks", {"max_ctr_change": 0.2}, r"impressions: click-through rate 5.0% \(at most 20.0%"),
        ("company", {"max_new_company_share": 0.3}, r"impressions of new companies 33.3% \(at most 30.0%\)"),
        ("repeats", {"max_repeated_share": 0.4}, r"impressions: repeated rows 50.0% \(at most 40.0%\)"),
    ],
)
def test_drift_beyond_a_limit_stops_the_step(
    log: Log, tmp_path: Path, change: str, knob: dict[str, float], message: str
) -> None:
    log.run()
    previous = _later(log, tmp_path / "earlier")
    if change == "missing":
        for row in log.impressions:
            row["position"] = None
    elif change == "clicks":
        for row in log.impressions[:42]:
            row["clicked"], row["clicked_at"] = False, None
    elif change == "company":
        log.jobs[2]["company"] = "Newcomer"
    else:
        log.impressions += [dict(row) for row in log.impressions]
    log.run(previous=previous, max_missing_rise=1.0, max_ctr_change=10.0, max_repeated_share=1.0)
    report = tmp_path / "quality.html"
    uris = {name: save(getattr(log, name), log.folder / f"{name}.parquet") for name in ("jobs", "impressions", "users")}
    config = IngestConfig(previous=previous, threads=1, **knob)  # type: ignore[arg-type]
    with pytest.raises(QualityError, match=message):
        step.run(**uris, dataset=tmp_path / "stopped", config=config, quality=report)
    assert not (tmp_path / "stopped").exists()
    page = report.read_text()
    assert (
        re.search(r'<h1 class="bad"><bdi>Stopped: .* beyond the limit', page) and '<td class="bad" data-name="limit">' in page
    )


def test_the_same_data_again_is_no_drift(log: Log, tmp_path: Path) -> None:
    log.run()
    previous = _later(log, tmp_path / "earlier")
    log.run(previous=f"file://{previous}", max_new_company_share=0.0, max_missing_rise=0.0, max_ctr_change=0.001)
    measured = _quality(log)
    assert measured["new_companies"] == {"companies": 0, "impressions_share": 0.0}
    assert all(f["before"] in (None, f["value"]) for f in measured["findings"])


def test_the_page_stands_alone_and_escapes(log: Log, tmp_path: Path) -> None:
    log.jobs.append({"job_id": "<script>alert(1)</script>", "title": "", "company": "X"})
    uris = {name: save(getattr(log, name), log.folder / f"{name}.parquet") for name in ("jobs", "impressions", "users")}
    config = IngestConfig(max_quarantined_share=1.0, threads=1)
    step.run(**uris, dataset=log.out, config=config, quality=tmp_path / "a.html", metrics=tmp_path / "m.json")
    page = (tmp_path / "a.html").read_text()
    assert page.count("<svg") == 2 + 3
    assert re.search(
        r'<h1 class="good"><bdi>Accepted: \d+ of \d+ impressions kept, 0 refused; \d+ of \d+ jobs kept, 1 refused; ', page
    )
    assert "none" not in page.split("Refused rows by reason")[-1].split("</section>")[0]
    assert "<script" not in page
    assert 'src="' not in page and 'href="http' not in page
    assert "missing value" in page and "missing_value" not in page
    step.run(**uris, dataset=log.out, config=config, quality=tmp_path / "b.html")
    assert (tmp_path / "b.html").read_text() == page
    assert json.loads((tmp_path / "m.json").read_text())["jobs_quarantined"] == 1
