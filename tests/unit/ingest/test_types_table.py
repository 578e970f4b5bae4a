"""The table in ingest's README of what each type accepts, run in every format and in every type of the formats."""

import csv
import datetime
import decimal
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tritower.ingest import rows, sources

README = Path(rows.__file__).with_name("README.md")
# Where a type of the table is tried: an optional column, but for the id.
PLACES = {
    "time": ("jobs", "posted_at"),
    "whole number": ("impressions", "position"),
    "number": ("jobs", "longitude"),
    "truth value": ("impressions", "randomised"),
    "id": ("jobs", "job_id"),
    "text": ("jobs", "city"),
    "list of texts": ("users", "interests"),
}
# What the rows need besides.
REST = {
    "jobs": {"job_id": "j", "title": "t", "company": "c", "latitude": 1},
    "impressions": {"request_id": "r", "ts": "2026-01-01", "user_id": "u", "query": "q", "job_id": "j", "clicked": True},
    "users": {"user_id": "u"},
}
UNREADABLE = {"wrong_type", "out_of_range"}


def table() -> list[tuple[str, list[str], str]]:
    """(type, values, what they are read as) of each line of the table."""
    text = README.read_text(encoding="utf-8")
    lines = text[text.index("## What each type accepts") : text.index("## What happens to a row")].splitlines()
    found = []
    for line in lines:
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 3 and cells[0] in PLACES:
            found.append((cells[0], re.findall(r"`([^`]*)`", cells[1]), cells[2].strip("`")))
    return found


def read(path: Path, place: tuple[str, str]) -> list[str]:
    """Each row's value of the column as the table writes it, by ingest's own kernel on a real file."""
    name, column = place
    outcomes = []
    for batch in rows.check_rows(iter(sources.plan(str(path)).as_table().to_batches()), table=name, rename={}):
        notes = zip(*(batch[field].to_pylist() for field in (column, "mended", "reason", "detail")), strict=True)
        for value, mended, reason, detail in notes:
            kinds = {code.rpartition(".")[2] for code in (mended or "").split(",") if code.startswith(f"{column}.")}
            if reason == "missing_value" and detail.startswith(f"{column} = "):
                kinds.add("none")
            outcomes.append(_outcome(value, column, kinds))
    return outcomes


def _outcome(value: Any, column: str, kinds: set[str]) -> str:
    if value is None:
        return "unclear" if "ambiguous_time" in kinds else "unreadable" if kinds & UNREADABLE else "nothing"
    assert not kinds
    if column == "posted_at":
        epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
        return (epoch + datetime.timedelta(microseconds=value)).isoformat().removesuffix("+00:00")
    return json.dumps(value) if isinstance(value, bool | list) else str(value)


def save_csv(values: list[Any], place: tuple[str, str], path: Path) -> Path:
    rest = {name: value for name, value in REST[place[0]].items() if name != place[1]}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([[place[1], *rest], *([value, *rest.values()] for value in values)])
    return path


def save_json(values: list[Any], place: tuple[str, str], path: Path) -> Path:
    lines = [json.dumps(REST[place[0]] | {place[1]: value}) + "\n" for value in values]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def save_parquet(values: pa.Array, place: tuple[str, str], path: Path) -> Path:
    rest = {name: [value] * len(values) for name, value in REST[place[0]].items()}
    pq.write_table(pa.table(rest | {place[1]: values}), path)
    return path


@pytest.mark.parametrize("line", range(len(table())))
def test_a_line_of_the_table(tmp_path: Path, line: int) -> None:
    type, values, meant = table()[line]
    place = PLACES[type]
    expected = [meant] * len(values)
    assert values
    assert read(save_csv(values, place, tmp_path / "t.csv"), place) == expected
    assert read(save_json(values, place, tmp_path / "t.jsonl"), place) == expected
    text = pa.array(values)
    for number, kind in enumerate((text, text.dictionary_encode(), text.cast(pa.large_string()), text.cast(pa.binary()))):
        assert read(save_parquet(kind, place, tmp_path / f"t{number}.parquet"), place) == expected, kind.type
    for value in values:  # alone, so that no other value changes the column's type
        for number, own in enumerate(_own_types(type, value)):
            assert read(save_parquet(own, place, tmp_path / f"own{number}.parquet"), place) == [meant], (value, own.type)
        assert read(save_csv([value], place, tmp_path / "one.csv"), place) == [meant], value
        as_json = _as_json(value)
        if as_json is not None:
            assert read(save_json([as_json], place, tmp_path / "one.jsonl"), place) == [meant], value


def _as_json(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return None


def _own_types(type: str, value: str) -> list[pa.Array]:
    """The value in Arrow's own types, where it has some."""
    if type == "time":
        if value == "null":
            return [pa.nulls(1, pa.timestamp("us")), pa.nulls(1)]
        return _own_times(value) + (_own_numbers(value) if re.fullmatch(r"-?[\d.e]+", value) else [])
    if type == "list of texts":
        own = _as_json(value)
        if not isinstance(own, list) or own != ["Nurse", "Cook"]:
            return []
        return [pa.array([own], kind) for kind in (pa.list_(pa.string(), 2), pa.large_list(pa.large_string()))]
    if value == "null":
        return [pa.nulls(1, pa.int64()), pa.nulls(1)]
    if type == "truth value" and value in ("true", "false"):
        return [pa.array([value == "true"])]
    return _own_numbers(value) if type != "text" and re.fullmatch(r"-?[\d.]+(e\d+)?", value) else []


def _own_times(value: str) -> list[pa.Array]:
    try:
        time = datetime.datetime.fromisoformat(value)
    except ValueError:
        return []
    if re.fullmatch(r"\d{8,}", value):
        return []
    utc = time.astimezone(datetime.UTC) if time.tzinfo and time.year < 9999 else time.replace(tzinfo=datetime.UTC)
    kinds = [pa.timestamp(unit, tz=zone) for unit in ("s", "ms", "us", "ns") for zone in (None, "UTC", "Asia/Kolkata")]
    own = [pa.array([utc.replace(tzinfo=None)], kind) for kind in kinds if 1700 < time.year < 2200 or kind.unit != "ns"]
    return own + ([pa.array([time.date()], kind) for kind in (pa.date32(), pa.date64())] if len(value) == 10 else [])


def _own_numbers(value: str) -> list[pa.Array]:
    number = decimal.Decimal(value)
    own = [pa.array([number.quantize(decimal.Decimal("0.1"))], pa.decimal128(38, 1)), pa.array([float(number)])]
    if number == int(number):
        own.append(pa.array([int(number)], pa.int64()))
    if number == int(number) >= 0:
        own.append(pa.array([int(number)], pa.uint64()))
    return own


def test_every_type_is_in_the_table() -> None:
    lines = table()
    assert {type for type, _, _ in lines} == set(PLACES)
    assert sum(len(values) for _, values, _ in lines) > 100
