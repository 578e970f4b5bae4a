"""The audit passes on honest features and finds leaks that are planted."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tritower import schema
from tritower.errors import StorageError
from tritower.features import audit, step
from tritower.features.config import FeaturesConfig

from tests.support import tiny_dataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_dataset.build(tmp_path_factory.mktemp("audit"), requests=90)
    step.run(
        dataset=folder / "dataset", embeddings=folder / "embeddings", features=folder / "features",
        config=FeaturesConfig(history_clicks=4),
    )  # fmt: skip
    return folder


def copy_with(folder: Path, out: Path, column: str, change: object) -> Path:
    """The features with one column changed by `change(table) -> array`."""
    for split in schema.SPLITS:
        table = pq.read_table(folder / "features" / split)
        (out / split).mkdir(parents=True)
        values = pa.array(change(table), pa.float32())  # type: ignore[operator]
        pq.write_table(table.set_column(table.schema.names.index(column), column, values), out / split / "part-00000.parquet")
    (out / "features.json").write_text((folder / "features" / "features.json").read_text())
    return out


def run(folder: Path, features: Path, rows: int = 150) -> audit.Report:
    return audit.run(dataset=folder / "dataset", embeddings=folder / "embeddings", features=features, rows=rows)


def test_honest_features_are_clean(folder: Path) -> None:
    report = run(folder, folder / "features")
    assert report.clean, (report.mismatches, report.leaking)
    assert report.rows == 150
    assert report.shuffled_rows >= 200
    assert report.unknown == [] and report.telling == []
    assert {"row", "request", "ts", "position", "clicked", "randomised"} <= set(report.unaudited)
    assert not {"job", "user", "job_ctr"} & set(report.unaudited)


def with_telling_jobs(folder: Path, root: Path) -> Path:
    """The same log where every job has two numbers: one of its clicked rows, one of the others."""
    for name in ("requests", "users", "texts"):
        (root / "dataset").mkdir(parents=True, exist_ok=True)
        (root / "dataset" / f"{name}.parquet").write_bytes((folder / "dataset" / f"{name}.parquet").read_bytes())
    (root / "dataset" / "dataset.json").write_text("{}")
    jobs = pq.read_table(folder / "dataset" / "jobs.parquet")
    twice = pa.concat_tables([jobs, jobs])
    twice = twice.set_column(0, jobs.schema.field("job"), pa.array(np.arange(len(twice)), pa.int32()))
    pq.write_table(twice, root / "dataset" / "jobs.parquet")
    for split in schema.SPLITS:
        table = pq.read_table(folder / "dataset" / "impressions" / split)
        job = table.column("job").to_numpy() + len(jobs) * table.column("clicked").to_numpy(zero_copy_only=False)
        table = table.set_column(table.schema.get_field_index("job"), "job", pa.array(job, pa.int32()))
        (root / "dataset" / "impressions" / split).mkdir(parents=True)
        pq.write_table(table, root / "dataset" / "impressions" / split / "part-00000.parquet")
    return root


def test_job_ids_that_only_clicked_rows_have_are_found(folder: Path, tmp_path: Path) -> None:
    """No feature sees the future here, and yet the popularity of such an id is the label: the log is at fault."""
    root = with_telling_jobs(folder, tmp_path / "log")
    step.run(
        dataset=root / "dataset", embeddings=folder / "embeddings", features=root / "features",
        config=FeaturesConfig(history_clicks=4),
    )  # fmt: skip
    report = audit.run(dataset=root / "dataset", embeddings=folder / "embeddings", features=root / "features", rows=20)
    assert not report.mismatches and not report.leaking and not report.clean
    assert {"job", "job_ctr"} <= {told.column for told in report.telling}
    assert report.telling[0].auc == pytest.approx(1.0, abs=0.01)


def test_a_missing_value_that_is_the_label_is_found(folder: Path, tmp_path: Path) -> None:
    def leak(table: pa.Table) -> list[float | None]:
        return [None if is_clicked else 0.5 for is_clicked in table.column("clicked").to_pylist()]

    report = run(folder, copy_with(folder, tmp_path / "f", "title_partial", leak), rows=5)
    assert ("title_partial", True, 1.0) in {(told.column, told.missing, told.auc) for told in report.telling}


def test_a_counter_that_includes_its_own_click_is_found(folder: Path, tmp_path: Path) -> None:
    def leak(table: pa.Table) -> np.ndarray:
        clicks = np.expm1(table.column("job_clicks").to_numpy()) + table.column("clicked").to_numpy(zero_copy_only=False)
        return np.log1p(clicks)

    report = run(folder, copy_with(folder, tmp_path / "leak", "job_clicks", leak))
    assert set(report.mismatches) == {"job_clicks"}
    assert report.leaking == ["job_clicks"]


def test_clicks_counted_before_they_were_made_are_found(folder: Path, tmp_path: Path) -> None:
    """The whole step run on a log whose clicks count from the impression on, as if nobody ever thought before clicking."""
    early = tmp_path / "early"
    for split in schema.SPLITS:
        table = pq.read_table(folder / "dataset" / "impressions" / split)
        at = pa.array(
            [
                ts if clicked else None
                for ts, clicked in zip(*(table.column(c).to_pylist() for c in ("ts", "clicked")), strict=True)
            ],
            table.schema.field("clicked_at").type,
        )
        (early / "impressions" / split).mkdir(parents=True)
        pq.write_table(
            table.set_column(table.schema.names.index("clicked_at"), "clicked_at", at),
            early / "impressions" / split / "part-00000.parquet",
        )
    (early / "dataset.json").write_text("{}")
    for name in ("jobs", "users", "requests", "texts"):
        (early / f"{name}.parquet").write_bytes((folder / "dataset" / f"{name}.parquet").read_bytes())
    step.run(dataset=early, embeddings=folder / "embeddings", features=tmp_path / "f", config=FeaturesConfig(history_clicks=4))
    report = run(folder, tmp_path / "f")
    assert {"job_clicks", "history_clicks"} <= set(report.mismatches)
    assert "job_ctr" in report.leaking


def test_a_zero_in_place_of_a_missing_value_is_found(folder: Path, tmp_path: Path) -> None:
    filled = copy_with(folder, tmp_path / "f", "job_ctr", lambda table: table.column("job_ctr").fill_null(0).to_numpy())
    assert set(run(folder, filled, rows=450).mismatches) == {"job_ctr"}


def test_rows_drawn_by_ingest_are_no_events(folder: Path, tmp_path: Path) -> None:
    """In a log of views the other rows of a request were never shown: dropping them changes no feature of a view."""
    for name, kept in (("with", lambda row: True), ("without", lambda row: row["clicked"])):
        dataset = tmp_path / name
        for split in schema.SPLITS:
            table = pq.read_table(folder / "dataset" / "impressions" / split)
            (dataset / "impressions" / split).mkdir(parents=True)
            rows = pa.Table.from_pylist([row for row in table.to_pylist() if kept(row)], schema=table.schema)
            pq.write_table(rows, dataset / "impressions" / split / "part-00000.parquet")
        for table in ("jobs", "users", "requests", "texts"):
            (dataset / f"{table}.parquet").write_bytes((folder / "dataset" / f"{table}.parquet").read_bytes())
        (dataset / "dataset.json").write_text('{"counts": {"impressions": {"drawn": 7}}}')
        step.run(dataset=dataset, embeddings=folder / "embeddings", features=tmp_path / f"f-{name}", config=FeaturesConfig())
        report = audit.run(dataset=dataset, embeddings=folder / "embeddings", features=tmp_path / f"f-{name}", rows=60)
        assert report.clean, report.mismatches
    for split in schema.SPLITS:
        both = pq.read_table(tmp_path / "f-with" / split)
        assert both.filter(both.column("clicked")).equals(pq.read_table(tmp_path / "f-without" / split))


def test_the_command_exits_1_on_a_leak(folder: Path, tmp_path: Path) -> None:
    leak = copy_with(folder, tmp_path / "leak", "job_ctr", lambda table: table.column("clicked").cast(pa.float32()).to_numpy())
    base = [sys.executable, "-m", "tritower.features", "audit", "--dataset", str(folder / "dataset")]
    base += ["--embeddings", str(folder / "embeddings"), "--rows", "20", "--features"]
    found = subprocess.run([*base, str(leak)], capture_output=True, text=True, check=False)
    assert found.returncode == 1, found.stderr
    assert "job_ctr: 20 rows" in found.stdout
    assert found.stdout.rstrip().endswith("LEAK")
    assert "job_ctr (its value alone has AUC 1.0000 on the train rows)" in found.stdout
    assert "not audited, no feature: row, request, ts" in found.stdout
    nothing = subprocess.run([*base, str(tmp_path)], capture_output=True, text=True, check=False)
    assert nothing.returncode == 2
    assert "does not exist" in nothing.stderr


def test_missing_parts_are_an_error(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "features.json").write_text((folder / "features" / "features.json").read_text())
    with pytest.raises(StorageError, match="no Parquet files"):
        run(folder, tmp_path)
