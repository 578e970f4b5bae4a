"""Which files are read and what they are a log of: nothing that is pointed at is left out without a word."""

import bz2
import datetime
import gzip
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tritower.errors import ConfigError, DataError, SchemaError, StorageError, TritowerError
from tritower.ingest import csv_files, listing, parquet_files, sources

from tests.support.ingest_log import Log, at, impressions, save

CASES = Path(__file__).parents[2] / "data" / "cases"
RAW = CASES / "raw_errors"


def files(folder: Path, uri: str = "") -> tuple[list[str], dict[str, str]]:
    """The names below a folder that are read, and those that are not with the reason."""
    found, left_out = listing.list_source(uri or str(folder))
    return [file.removeprefix(f"{folder}/") for file, _ in found], {
        left.file.removeprefix(f"{folder}/"): left.reason for left in left_out
    }


def test_every_file_is_read_or_named(tmp_path: Path) -> None:
    folder = tmp_path / "a=b [x]*?#%20"
    plain = ["a.csv", "B.CSV", "e.tsv", "f.json", "g.JSONL", "deep/er/h.ndjson", "_day=1/i.csv"]
    texts = dict.fromkeys(plain, "") | dict.fromkeys(["c.csv.gz", "d.CSV.Gz"], "gz")
    texts |= {"part-00000": "csv", "part-00001": "json", "000000_0": "csv", "none": "json"}
    expected = sorted(texts)
    texts |= dict.fromkeys(["README", "notes.docx", "old.csv~", "table.sql"], "x")
    texts |= dict.fromkeys(["_SUCCESS", ".a.csv.crc", ".hidden.csv", "_temporary/0/part-00000.csv", "_delta_log/0.json"], "")
    content = {"gz": gzip.compress(b"k\n1\n"), "csv": b"k\n1\n", "json": b'{"k": 1}\n'}
    for name, what in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.get(what, what.encode() or b"k\n1\n"))
    read, left_out = files(folder)
    assert read == expected
    assert set(left_out) == texts.keys() - set(read)
    assert left_out["notes.docx"] == "'.docx' is no known ending"
    assert "hidden" in left_out[".hidden.csv"] and "hidden" in left_out["_temporary/0/part-00000.csv"]
    assert "Delta table" in left_out["_delta_log/0.json"] and "name it .csv" in left_out["README"]
    for uri in (f"{folder}/", f"file://{folder}", f"{tmp_path}/./{folder.name}"):
        assert len(listing.list_source(uri)[0]) == len(read)


def test_what_is_left_out_is_said(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    folder = log.folder / "many"
    folder.mkdir()
    save(log.impressions[:30], folder / "a.parquet")
    save(log.impressions[30:], folder / "b.PARQUET.parquet")
    for number in range(7):
        (folder / f"x{number}.csv.bak").write_text("x")
    (folder / "_SUCCESS").touch()
    with caplog.at_level(logging.INFO):
        log.run(places={"impressions": str(folder)})
    assert len(log.shown()) == 60
    said = next(record for record in caplog.records if "left out" in record.getMessage())
    assert said.levelname == "WARNING"
    assert said.getMessage().startswith("impressions: 7 files are left out: x0.csv.bak ('.bak' is no known ending), ")
    assert said.getMessage().endswith(" and 2 more")


def test_links(tmp_path: Path) -> None:
    folder, other = tmp_path / "log", tmp_path / "other"
    for name in ("log/a.csv", "log/deep/b.csv", "other/c.csv", "other/more/d.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("k\n1\n")
    for link, target in (
        ("deep/loop", folder),
        ("deep/up", tmp_path),
        ("again.csv", "a.csv"),
        ("out", other),
        ("self", "deep"),
    ):
        (folder / link).symlink_to(target)
    read, left_out = files(folder)
    assert read == ["a.csv", "deep/b.csv", "out/c.csv", "out/more/d.csv"]
    assert set(left_out) == {"deep/loop", "deep/up", "again.csv", "self"}
    (tmp_path / "way").symlink_to(folder)
    assert files(tmp_path / "way")[0] == read
    (folder / "z.csv").symlink_to("nowhere")
    with pytest.raises(StorageError, match=r"symbolic link leads nowhere \(in .*z.csv\)"):
        files(folder)
    (folder / "z.csv").unlink()
    (folder / "z.csv").symlink_to("z.csv")
    with pytest.raises(StorageError, match="leads nowhere"):
        files(folder)


def test_partitions_are_decoded(tmp_path: Path) -> None:
    log = Log(tmp_path)
    root = tmp_path / "city=Wrong" / "log"
    for value, rows in (("New%20York%2FNY", [0, 1]), ("__HIVE_DEFAULT_PARTITION__", [2])):
        (root / f"city={value}" / "x=1").mkdir(parents=True)
        jobs = [{name: log.jobs[row][name] for name in ("job_id", "title", "company")} for row in rows]
        save(jobs, root / f"city={value}" / "x=1" / "part.csv")
    log.run(places={"jobs": str(root)})
    assert [row["city"] for row in log.table("jobs")] == ["New York/NY", "New York/NY", None]
    (root / "city=a" / "city=b").mkdir(parents=True)
    save(jobs, root / "city=a" / "city=b" / "part.csv")
    with pytest.raises(DataError, match="two folders give 'city'"):
        log.run(places={"jobs": str(root)})


def test_the_file_goes_before_its_folder(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    (log.folder / "jobs" / "city=Rome").mkdir(parents=True)
    save(log.jobs, log.folder / "jobs" / "city=Rome" / "jobs.parquet")
    log.run(places={"jobs": str(log.folder / "jobs")})
    assert [row["city"] for row in log.table("jobs")] == ["Ames", None, "Oslo"]
    assert "jobs: the files' own columns are read, not those of their folders: city" in caplog.text


@pytest.mark.parametrize(
    "root", ["region=TX", "clicked=true/user=7", "ts=2020-01-01", "a [x]*?", "ü 'quoted'", "pc%20t#1", "job=0,x"]
)
def test_where_a_dataset_stands_changes_nothing(log: Log, root: str) -> None:
    log.run()
    expected = [pq.ParquetFile(log.out / f"{name}.parquet").read() for name in ("jobs", "users", "requests", "texts")]
    shown = log.shown()
    place = log.folder / root
    for name in ("jobs", "impressions", "users"):
        (place / "in").mkdir(parents=True, exist_ok=True)
        save(getattr(log, name), place / "in" / f"{name}.parquet")
    log.out = place / "out"
    log.run(
        places={name: str(place / "in" / f"{name}.parquet") for name in ("jobs", "impressions", "users")},
        previous=str(log.folder / "dataset"),
    )
    assert [pq.ParquetFile(log.out / f"{name}.parquet").read() for name in ("jobs", "users", "requests", "texts")] == expected
    assert log.shown() == shown


ZSTD = pa.Codec("zstd")


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [
        (".csv.gz", lambda text: gzip.compress(text[:500]) + gzip.compress(text[500:])),
        (".CSV.GZ", gzip.compress),
        (".csv", gzip.compress),
        (".csv.bz2", lambda text: bz2.compress(text[:500]) + bz2.compress(text[500:])),
        (".csv.zst", lambda text: ZSTD.compress(text[:500], asbytes=True) + ZSTD.compress(text[500:], asbytes=True)),
    ],
)
def test_compressed_files(log: Log, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    text = Path(save(log.impressions, log.folder / "plain.csv")).read_bytes()
    packed = log.folder / f"packed{suffix}"
    packed.write_bytes(pack(text))
    log.run(places={"impressions": str(packed)})
    assert len(log.shown()) == 60 and log.reasons() == {}
    if suffix != ".csv":
        packed.write_bytes(pack(text)[:-9])
        with pytest.raises(DataError, match=r"data are cut short or damaged .*packed.*Copy or export the file again"):
            log.run(places={"impressions": str(packed)})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cut.csv.gz", r"gzip data are cut short or damaged .*cut.csv.gz"),
        ("not_gzip.csv.gz", r"the name says gzip, but the content is not.*not_gzip.csv.gz.*rename it without .gz"),
        ("same_name_twice.parquet", "column 'job_id' occurs twice .*same_name_twice.parquet"),
    ],
)
def test_spoilt_files_give_one_error(tmp_path: Path, name: str, message: str) -> None:
    log = Log(tmp_path)
    with pytest.raises(DataError, match=message):
        log.run(places={"jobs": str(RAW / "jobs.csv"), "impressions": str(RAW / name)}, with_users=False)
    assert not log.out.exists()


def test_where_a_large_file_breaks_off(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_files, "BLOCK_BYTES", 1 << 16)
    rows = [row | {"request_id": f"{copy}-{row['request_id']}"} for copy in range(400) for row in log.impressions]
    text = Path(save(rows, log.folder / "plain.csv")).read_bytes()
    (log.folder / "cut.csv.gz").write_bytes(gzip.compress(text, 1)[:-200])
    with pytest.raises(DataError, match=r"cut short or damaged .*cut.csv.gz, after line \d{5}"):
        log.run(places={"impressions": str(log.folder / "cut.csv.gz")})


def test_lines_ended_by_a_carriage_return(tmp_path: Path) -> None:
    shown = []
    for name in ("cr_only.csv", "good.csv"):
        log = Log(tmp_path)
        log.run(places={"jobs": str(RAW / "jobs.csv"), "impressions": str(RAW / name)}, with_users=False)
        shown.append(log.shown())
    assert shown[0] == shown[1] and len(shown[0]) == 461


def test_a_rename_onto_a_column_that_is_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = Log(tmp_path)
    places = {"jobs": str(RAW / "jobs.csv"), "impressions": str(RAW / "rename_onto_existing.parquet")}
    with pytest.raises(SchemaError, match=r"columns 'clicked' and 'clicked_v2' would both be 'clicked'.*rename_onto"):
        log.run(places=places, with_users=False, rename={"impressions.clicked_v2": "clicked"})
    rename = {"impressions.clicked_v2": "clicked", "impressions.clicked": "old", "impressions.nowhere": "city2"}
    log.run(places=places, with_users=False, rename=rename)
    assert len(log.shown()) == 461
    assert "no file has what the knob rename names: nowhere" in caplog.text


def _folder(log: Log, suffix: str, drop: str) -> str:
    """Three files of impressions, the oldest without a column."""
    folder = log.folder / "parts"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for part in range(3):
        rows = [dict(row) for row in impressions()[part * 21 : (part + 1) * 21]]
        for row in rows if part == 0 else []:
            del row[drop]
        save(rows, folder / f"day{part}{suffix}")
    return str(folder)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_an_older_file_without_a_column(log: Log, suffix: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(
        SchemaError, match=r"column 'clicked' is missing, which 2 of the other files have \(in .*day0.*Leave the file out"
    ):
        log.run(places={"impressions": _folder(log, suffix, "clicked")})
    with caplog.at_level(logging.INFO):
        log.run(places={"impressions": _folder(log, suffix, "position")})
    assert f"impressions: 'position' is missing in 1 of 3 files: day0{suffix}" in caplog.text
    assert sum(row["position"] is None for row in log.shown()) == 21


def test_an_older_file_of_objects_without_a_click(log: Log) -> None:
    """A part without `clicked` beside others that have it: clicked where there is the time of a click."""
    log.run()
    expected = log.shown()
    log.run(places={"impressions": _folder(log, ".jsonl", "clicked")})
    assert log.reasons() == {} and log.shown() == expected
    assert sum(row["clicked"] for row in expected[:21]) == 4


def test_the_first_line_says_what_the_log_is_of(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    def first(**knobs: Any) -> str:
        caplog.clear()
        with caplog.at_level(logging.INFO):
            log.run(**knobs)
        return str(caplog.records[0].getMessage())

    assert first().startswith("a log of impressions")
    assert first(log="impressions").startswith("a log of impressions")
    drawn = "a log of views: every row is taken for a view, {} jobs are drawn for each (knob log)"
    with pytest.raises(ConfigError, match="negatives"):
        log.run(log="impressions", negatives=2)
    log.jobs = [{"job_id": f"j{i}", "title": f"t{i}", "company": "c"} for i in range(40)]
    log.impressions = [{"ts": at(i / 4), "user_id": f"u{i % 97}", "job_id": f"j{(i * 7) % 40}"} for i in range(300)]
    assert first() == drawn.format(9)
    with pytest.raises(SchemaError, match="column 'request_id' is missing"):
        log.run(log="impressions")
    log.impressions = [row | {"clicked": True} for row in log.impressions]
    with pytest.raises(SchemaError, match="column 'request_id' is missing"):
        log.run()
    assert first(log="views", negatives=1) == drawn.format(1)
    assert sum(row["clicked"] for row in log.shown()) == len(log.shown()) / 2 > 0


def test_files_of_a_kind_that_their_name_does_not_say(tmp_path: Path) -> None:
    table = pa.table({"k": [1]})
    for name in ("plain", "odd.dat"):
        pq.write_table(table, tmp_path / name)
        assert listing.list_source(str(tmp_path / name))[0] == [(str(tmp_path / name), "parquet")]
    for name, text, kind in (("x.dat", "k,v\n1,2\n", "csv"), ("y.log", '{"k": 1}\n', "jsonl"), ("z", "k\n1\n", "csv")):
        (tmp_path / name).write_text(text)
        assert listing.list_source(str(tmp_path / name))[0] == [(str(tmp_path / name), kind)]
    for name, content in (
        ("book.xlsx", b"PK\x03\x04xxxx"),
        ("t.csv", b"PAR1xxxx"),
        ("t.parquet", b"k,v\n1,2\n"),
        ("t.jsonl", b"k,v\n1,2\n"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(TritowerError) as caught:
            source = sources.plan(str(tmp_path / name), frozenset({"k"}))
            sources.columns(source.pieces[0])
        assert name in str(caught.value) and caught.value.remedy


def test_parquet_of_many_shapes(log: Log) -> None:
    """Parts without rows, dictionaries, other orders of columns, nested columns beside ours: all rows are read."""
    folder = log.folder / "parts"
    folder.mkdir()
    table = pa.Table.from_pylist(log.impressions)
    pq.write_table(table.slice(0, 0), folder / "a.parquet")
    pq.write_table(table.slice(0, 20), folder / "b.parquet", row_group_size=7)
    odd = table.slice(20, 20).select(table.column_names[::-1])
    odd = odd.set_column(odd.column_names.index("query"), "query", odd["query"].dictionary_encode())
    odd = odd.append_column("extra", pa.array([[{"a": {"b": 1}}]] * 20)).append_column("more", pa.array([{"x": [1]}] * 20))
    pq.write_table(odd, folder / "c.parquet")
    nested = table.slice(40, 20).append_column("city", pa.array([{"name": "x"}] * 20))
    pq.write_table(nested, folder / "d.parquet")
    numbers = log.run(places={"impressions": str(folder)})
    assert numbers["impressions_in"] == 60 and numbers["impressions_out"] >= 40
    pq.write_table(table.slice(0, 0), folder / "only.parquet")
    with pytest.raises(DataError, match="no rows"):
        log.run(places={"impressions": str(folder / "only.parquet")})


def test_the_files_of_an_older_schema_are_json_too(log: Log) -> None:
    """A folder of three formats is one log."""
    folder = log.folder / "mixed"
    folder.mkdir()
    for name, rows in (
        ("a.csv", log.impressions[:20]),
        ("b.jsonl", log.impressions[20:40]),
        ("c.parquet", log.impressions[40:]),
    ):
        save(rows, folder / name)
    log.run()
    expected = log.shown()
    log.run(places={"impressions": str(folder)})
    assert log.shown() == expected
    assert json.loads((log.out / "dataset.json").read_text())["counts"]["impressions"]["in"] == 60


def test_old_times_of_parquet_do_not_wrap_round(tmp_path: Path) -> None:
    """INT96, as Spark and Impala wrote it: in nanoseconds 2300 is the year 1715."""
    path = tmp_path / "old.parquet"
    times = [datetime.datetime(2026, 1, 5, 0, 0, 54), datetime.datetime(2300, 6, 1)]  # noqa: DTZ001 - INT96 has no zone
    table = pa.table({"expires_at": pa.array(times, pa.timestamp("us"))})
    pq.write_table(table, path, use_deprecated_int96_timestamps=True)
    (piece,) = parquet_files.pieces(str(path))
    (batch,) = parquet_files.read({"file": str(path), **piece})
    assert batch.table["expires_at"].to_pylist() == times
