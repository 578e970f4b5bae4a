"""Where the tables of a test lie: in a store, and in the server's own log."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tritower import storage
from tritower.errors import SchemaError
from tritower.experiment import simulated_log, step
from tritower.experiment.config import AnalysisConfig, Habits, PlanConfig

CONFIG = AnalysisConfig(planned_days=8)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("test") / "log"
    simulated_log.write(folder, users=800, days=8, seed=2, habits=Habits(effect=0.2))
    return folder


def test_parquet_in_a_store_is_read_where_it_is(log: Path, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = pq.read_table(log / "shown.parquet")
    (tmp_path / "shown").mkdir()
    for part, rows in enumerate((shown.slice(0, 5000), shown.slice(5000))):  # as the server writes it, in several files
        pq.write_table(rows if part else rows.drop_columns("country"), tmp_path / "shown" / f"part-{part}.parquet")
    storage.upload_tree(tmp_path / "shown", f"{s3}/shown")
    storage.upload(log / "past.parquet", f"{s3}/past.parquet")
    here = step.analyse(shown=log / "shown.parquet", past=log / "past.parquet", config=CONFIG)
    monkeypatch.setattr(storage, "fetch", None)
    assert step.analyse(shown=f"{s3}/shown", past=f"{s3}/past.parquet", config=CONFIG) == here
    planned = step.plan(log=f"{s3}/past.parquet", config=PlanConfig())
    assert planned == step.plan(log=log / "past.parquet", config=PlanConfig())
    with pytest.raises(SchemaError, match="'arm' is missing") as caught:
        step.analyse(shown=f"{s3}/past.parquet", config=CONFIG)
    assert caught.value.where == f"exposures: {s3}/past.parquet"


def test_rows_from_before_the_test_have_no_unit_in_the_servers_log(log: Path, tmp_path: Path) -> None:
    shown, past = (pq.read_table(log / f"{name}.parquet") for name in ("shown", "past"))
    same = ["ts", "unit", "clicked", "clicked_at"]
    served = pa.concat_tables(
        [
            shown.select([*same, "arm"]).append_column("user_id", shown["unit"]),
            past.select(same)
            .append_column("arm", pa.array([""] * len(past)))
            .append_column("user_id", past["unit"])
            .set_column(1, "unit", pa.array([""] * len(past))),
        ]
    )
    pq.write_table(served, tmp_path / "served.parquet")
    start = pc.min(shown["ts"]).as_py().isoformat()
    own = step.analyse(shown=tmp_path / "served.parquet", config=AnalysisConfig(planned_days=8, start=start))
    apart = step.analyse(shown=log / "shown.parquet", past=log / "past.parquet", config=CONFIG)
    assert own["cuped_saved_pct"] > 20 and own["uplift_pct"] == pytest.approx(apart["uplift_pct"], abs=0.01)


def test_a_past_without_clicks_is_named(log: Path, tmp_path: Path) -> None:
    pq.write_table(pq.read_table(log / "past.parquet", columns=["ts", "unit"]), tmp_path / "past.parquet")
    with pytest.raises(SchemaError, match="'clicked' is missing") as caught:
        step.analyse(shown=log / "shown.parquet", past=tmp_path / "past.parquet", config=CONFIG)
    assert caught.value.where == f"past: {tmp_path}/past.parquet" and "CUPED needs" in caught.value.remedy
