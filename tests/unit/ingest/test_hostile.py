"""Texts without end, and files that are small on the disk and huge in memory."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tritower.ingest import parquet_files, raw

from tests.support.ingest_log import Log, save


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_long_texts_are_cut_and_counted(tmp_path: Path, suffix: str) -> None:
    log = Log(tmp_path, suffix)
    log.jobs[0]["title"] = "nurse " * 10_000
    log.jobs[1]["title"] = "é" * 100  # 200 bytes, but 100 characters
    log.jobs[2]["company"] = "x" * 101
    log.users[0]["interests"] = ["y" * 99, "z" * 5_000, "cook"]
    log.run(max_text_characters=100)
    jobs = {row["job_id"]: row for row in log.table("jobs")}
    assert jobs["a"]["title"] == ("nurse " * 17)[:100]
    assert jobs["b"]["title"] == "é" * 100
    assert jobs["c"]["company"] == "x" * 100
    (interests,) = [row["interests"] for row in log.table("users") if row["user_id"] == "u0"]
    assert interests == ["y" * 99, "z" * 100, "cook"]
    mended = log.mended("jobs")
    assert (mended["title.cut"], mended["company.cut"], log.mended("users")["interests.cut"]) == (1, 1, 1)


def test_batches_are_bounded_by_bytes(tmp_path: Path) -> None:
    """Seven texts of 100 kB, once each in the file and 50,000 times in the rows: 4 GB if they were written out at once."""
    count, texts = 50_000, [f"{n}{'x' * 100_000}" for n in range(7)]
    number_N = np.arange(count)
    expected = {
        "job_id": [f"j{n % 300}" for n in range(count)],
        "title": [None if n % 5 == 0 else str(n % 7) for n in range(count)],
        "level": [3 + n % 2 for n in range(count)],
        "mark": [b"ab" if n % 3 else None for n in range(count)],
    }
    title = pa.DictionaryArray.from_arrays(pa.array(number_N % 7, pa.int32(), mask=number_N % 5 == 0), texts)
    level = pa.DictionaryArray.from_arrays(pa.array(number_N % 2, pa.int8()), [3, 4])
    path = tmp_path / "big.parquet"
    pq.write_table(pa.table(expected | {"title": title, "level": level}), path)
    assert path.stat().st_size < 1_000_000
    row, largest = 0, 0
    for piece in parquet_files.pieces(str(path)):
        for batch in parquet_files.read({"file": str(path), **piece}):
            rows = slice(row, row + batch.table.num_rows)
            largest = max(largest, batch.table.nbytes)
            assert batch.rows.to_pylist() == list(range(rows.start, rows.stop))
            got = {name: batch.table[name].to_pylist() for name in expected}
            got["title"] = [text and text[0] for text in got["title"]]
            assert got == {name: values[rows] for name, values in expected.items()}
            row = rows.stop
    assert row == count
    assert largest < 2 * raw.BLOCK_BYTES


@pytest.mark.slow
def test_a_huge_dictionary_passes_in_little_memory(tmp_path: Path) -> None:
    """The whole step in a process that may hold 3 GB of addresses; the titles are 4 GB if they are written out at once."""
    log, count = Log(tmp_path), 20_000
    places = {name: save(getattr(log, name), tmp_path / f"{name}.parquet") for name in ("impressions", "users")}
    (tmp_path / "jobs").mkdir()
    save(log.jobs, tmp_path / "jobs" / "a.parquet")
    title = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), ["nurse " * 33_000])
    more = pa.table({"job_id": [f"more{n}" for n in range(count)], "title": title, "company": ["Acme"] * count})
    pq.write_table(more, tmp_path / "jobs" / "b.parquet")
    places |= {"jobs": str(tmp_path / "jobs"), "dataset": str(log.out)}
    program = (
        "import json, resource, sys; from tritower.ingest import step; from tritower.ingest.config import IngestConfig\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({3 << 30}, {3 << 30}))\n"
        "step.run(**json.loads(sys.argv[1]), config=IngestConfig(threads=1))"
    )
    done = subprocess.run([sys.executable, "-c", program, json.dumps(places)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2_000:]
    assert len(log.table("jobs")) == count + len(log.jobs)
    assert log.mended("jobs")["title.cut"] == count
