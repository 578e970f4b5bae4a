"""The sample rows of the README are rows that ingest takes as they stand."""

import re
from pathlib import Path

import pyarrow.parquet as pq
from tritower.ingest import step
from tritower.ingest.config import IngestConfig

README = Path(__file__).parents[3] / "README.md"


def test_the_sample_is_read_without_a_remark(tmp_path: Path) -> None:
    (block,) = re.findall(r"```\n(jobs\.csv\n.*?)```", README.read_text(), flags=re.DOTALL)
    for table in block.strip().split("\n\n"):
        name, header, *rows = table.splitlines()
        if name == "impressions.csv":  # one search cannot be split by time: the same on ten days
            rows = [re.sub(r"01-05T", f"01-{day:02}T", f"r{day}{row[2:]}") for day in range(5, 15) for row in rows]
        (tmp_path / name).write_text("\n".join([header, *rows]) + "\n")
    places = {name: str(tmp_path / f"{name}.csv") for name in ("jobs", "impressions", "users")}
    step.run(**places, dataset=tmp_path / "dataset", config=IngestConfig(threads=1))
    shown = [
        row for file in sorted((tmp_path / "dataset/impressions").rglob("*.parquet")) for row in pq.read_table(file).to_pylist()
    ]
    assert (len(shown), sum(row["clicked"] for row in shown)) == (20, 10)
    assert pq.read_metadata(tmp_path / "dataset/quarantine.parquet").num_rows == 0
    texts = set(pq.read_table(tmp_path / "dataset/texts.parquet")["value"].to_pylist())
    assert {"Nurse", "ICU Nurse", "Nursing Assistant", "rn night shift"} <= texts
