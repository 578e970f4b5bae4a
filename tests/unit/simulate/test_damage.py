"""Bad rows: the manifest lists exactly the rows that a reader finds bad, and the rest is the clean log."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from tritower.simulate import damage, step
from tritower.simulate.config import SimulateConfig

KNOBS = {"impressions": 20_000, "seed": 5, "days": 10, "part_requests": 400}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    root = tmp_path_factory.mktemp("damage")
    step.run(out=root / "clean", config=SimulateConfig(**KNOBS))
    step.run(out=root / "bad", config=SimulateConfig(**KNOBS, bad_rows=0.06))
    return root / "clean", root / "bad"


def read(place):
    parts = sorted((place / "impressions").iterdir())
    frames = [pq.read_table(p).to_pandas().assign(file=p.name).reset_index(names="row") for p in parts]
    return pd.concat(frames, ignore_index=True)


def find(rows, jobs):
    """(file, row) -> kind of every bad row, found by looking."""
    far = pd.Timestamp("2100-01-01", tz="UTC")
    tests = {
        "missing_job": rows.job_id.isna(),
        "unknown_job": rows.job_id.notna() & ~rows.job_id.isin(jobs.job_id),
        "missing_user": rows.user_id.isna(),
        "wrong_ts": rows.ts > far,
        "position_out_of_range": rows.position < 1,
        "click_before_impression": rows.clicked_at < rows.ts.where(rows.ts < far, pd.Timestamp("1970", tz="UTC")),
        "click_time_without_click": rows.clicked_at.notna() & ~rows.clicked,
    }
    again = rows.duplicated(["request_id", "job_id"]) & rows.job_id.notna()
    same = rows.position == rows.position.shift()
    tests |= {"duplicate": again & same, "conflicting_duplicate": again & ~same}
    return {(rows.file[i], int(rows.row[i])): kind for kind, mask in tests.items() for i in rows.index[mask]}


def test_manifest_is_exactly_what_a_reader_finds(places):
    _, bad = places
    manifest = json.loads((bad / "bad_rows.json").read_text())
    listed = {(r["file"], r["row"]): r["kind"] for r in manifest["rows"]}
    rows = read(bad)
    assert listed == find(rows, pd.read_parquet(bad / "jobs.parquet"))
    assert len(listed) == len(manifest["rows"]) == sum(manifest["counts"].values())
    assert set(manifest["counts"]) == set(damage.KINDS)
    assert min(manifest["counts"].values()) > 0
    assert rows.file.nunique() > 1
    written = {(r.file, r.row): (r.request_id, r.job_id) for r in rows.itertuples()}
    for r in manifest["rows"]:
        request, job = written[r["file"], r["row"]]
        assert r["request_id"] == request and (r["job_id"] == job or r["kind"] == "missing_job")


def test_share_is_as_asked(places):
    _, bad = places
    count = len(json.loads((bad / "bad_rows.json").read_text())["rows"])
    mean, spread = 0.06 * 20_000, (0.06 * 0.94 * 20_000) ** 0.5
    assert abs(count - mean) < 4.5 * spread


def test_without_its_bad_rows_the_log_is_the_clean_one(places):
    clean, bad = places
    kinds = {(r["file"], r["row"]): r["kind"] for r in json.loads((bad / "bad_rows.json").read_text())["rows"]}
    listed = set(kinds)
    rows = read(bad)
    good = rows[[key not in listed for key in zip(rows.file, rows.row, strict=True)]].drop(columns=["row", "file"])
    whole = read(clean).drop(columns=["row", "file"])
    key = ["request_id", "job_id"]
    merged = good[key].merge(whole, on=key, how="left")
    pd.testing.assert_frame_equal(good.reset_index(drop=True), merged[good.columns], check_dtype=False)
    truth = pq.read_table(bad / "truth").to_pandas()
    unplaced = [kinds.get(place) == "position_out_of_range" for place in zip(rows.file, rows.row, strict=True)]
    still = rows[[place not in listed for place in zip(rows.file, rows.row, strict=True)] | np.array(unplaced)]
    assert sum(unplaced) > 0 and (truth[key].to_numpy() == still[key].to_numpy()).all()


def test_a_clean_log_has_an_empty_manifest(places):
    manifest = json.loads((places[0] / "bad_rows.json").read_text())
    assert manifest == {"counts": dict.fromkeys(damage.KINDS, 0), "rows": []}
