"""JSON taken apart: lines, arrays, objects over several lines; every key counts, and nothing is dropped without a word."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritower.errors import DataError
from tritower.ingest import json_files
from tritower.ingest.raw import Refused

from tests.support.ingest_log import Log, plain

CASES = Path(__file__).parents[2] / "data" / "cases"
NOTHING: frozenset[str] = frozenset()


def read(file: Path) -> tuple[dict[int, dict[str, Any]], dict[int, Refused]]:
    """The objects of a file and the refused ones, by row number; keys without a value are left away."""
    rows: dict[int, dict[str, Any]] = {}
    refused: dict[int, Refused] = {}
    for batch in json_files.read(str(file)):
        for number, row in zip(batch.rows.to_pylist(), batch.table.to_pylist(), strict=True):
            rows[number] = {name: value for name, value in row.items() if value is not None}
        refused |= {bad.row: bad for bad in batch.refused}
    return rows, refused


def write(tmp_path: Path, text: str | bytes) -> Path:
    file = tmp_path / "t.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


VALUES = st.one_of(
    st.integers(-5, 5),
    st.text(alphabet='a{}[]":,\\é\n', max_size=8),
    st.lists(st.sampled_from(["x", "{"]), min_size=1, max_size=2),
)
OBJECTS = st.lists(st.dictionaries(st.sampled_from(["a", 'b":', "é", "d"]), VALUES, min_size=1), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(
    objects=OBJECTS,
    form=st.sampled_from(["lines", "array", "indented array", "indented", "joined"]),
    block=st.sampled_from([5, 70, 1 << 20]),
)
def test_what_a_writer_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objects: list[dict[str, Any]], form: str, block: int
) -> None:
    """The same objects in every form, however the blocks fall."""
    for record in objects:  # one type of value a key: mixed ones become text, which is a test of its own
        for name in record:
            record[name] = json.dumps(record[name], ensure_ascii=False)
    texts = {
        "lines": "\n".join(json.dumps(record) for record in objects),
        "array": json.dumps(objects, ensure_ascii=False),
        "indented array": json.dumps(objects, indent=2),
        "indented": "\n".join(json.dumps(record, indent=1, ensure_ascii=False) for record in objects),
        "joined": "".join(json.dumps(record) for record in objects),
    }
    monkeypatch.setattr(json_files, "BLOCK_BYTES", block)
    found, refused = read(write(tmp_path, texts[form]))
    assert refused == {}
    assert list(found.values()) == objects


def _log(log: Log, keep_false: bool) -> Path:
    """1,200 searches of three rows; the first click comes after row 1,000."""
    rows = []
    for number in range(1_200):
        for place, job in enumerate("abc", start=1):
            row = {"request_id": f"r{number}", "ts": f"2026-01-{number // 60 + 1:02d}T00:{number % 60:02d}:00Z",
                   "user_id": f"u{number % 40}", "query": "nurse", "job_id": job}  # fmt: skip
            row |= {"position": place} if number > 800 else {}
            if number > 700 and job == "b":
                row |= {"clicked": True}
            elif keep_false:
                row |= {"clicked": False}
            rows.append(row)
    path = log.folder / "late.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_a_click_written_only_where_there_is_one(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        log.run(places={"impressions": str(_log(log, keep_false=False))})
    sparse = log.shown()
    assert "clicked.missing 3,101" in caplog.text
    assert caplog.records[0].getMessage().startswith("a log of impressions")
    assert sum(row["clicked"] for row in sparse) == 499
    assert sum(row["position"] is not None for row in sparse) == 3 * 399
    assert log.reasons() == {}
    log.run(places={"impressions": str(_log(log, keep_false=True))})
    assert log.shown() == sparse


def test_a_rename_and_a_click_written_only_where_there_is_one(log: Log) -> None:
    lines = [json.loads(line) for line in _log(log, keep_false=False).read_text().splitlines()]
    renamed = [{("chosen" if name == "clicked" else name): value for name, value in line.items()} for line in lines]
    (log.folder / "renamed.jsonl").write_text("\n".join(map(json.dumps, renamed)))
    log.run(places={"impressions": str(log.folder / "renamed.jsonl")}, rename={"impressions.chosen": "clicked"})
    assert sum(row["clicked"] for row in log.shown()) == 499 and log.reasons() == {}


def test_an_array_of_jobs(tmp_path: Path) -> None:
    log = Log(tmp_path)
    places = {"jobs": str(CASES / "json_array" / "jobs.json"), "impressions": str(CASES / "raw_errors" / "good.csv")}
    numbers = log.run(places=places, with_users=False)
    assert (numbers["jobs_out"], numbers["impressions_out"]) == (30, 461)
    assert log.table("jobs")[0]["title"] == "Registered Nurse"


@pytest.mark.parametrize("indent", [None, 2])
def test_a_broken_object_in_an_array(tmp_path: Path, indent: int | None) -> None:
    text = json.dumps([{"k": i, "list": [{"n": 1}]} for i in range(6)], indent=indent)
    broken = text.replace('"k": 3', '"k": oops').replace('"k": 5', '"k": ')
    found, refused = read(write(tmp_path, broken))
    assert sorted(row["k"] for row in found.values() if "k" in row) == [0, 1, 2, 4]
    assert {bad.reason for bad in refused.values()} == {"not_json"} and len(refused) == 2
    assert "object 4" in refused[3].detail and "oops" in refused[3].record


@pytest.mark.parametrize("cut", [-1, -3, -20])
def test_an_array_that_is_cut_short(tmp_path: Path, cut: int) -> None:
    text = json.dumps([{"k": i, "text": "abc"} for i in range(6)])[:cut]
    with pytest.raises(DataError, match=r"the JSON array does not end \(in .*t.json, after object [56]\).*cut short"):
        read(write(tmp_path, text))


def test_lines_that_are_no_rows(tmp_path: Path) -> None:
    lines = [
        b'\xef\xbb\xbf{"k": 1}',
        b'{"k": 2, "k": 3}',
        b'{"k": 4, "text": "\\ud83dx"}',
        b'{"k": 5, "text": "\xff"}',
        b"{}",
        b"",
        b"[1]",
        b'{"k": 6} {"k": 7}',
        b'{"k": 8, "list": [{"a": 1, "a:": 2}], "text": "\\":"}',
        b'{"k": NaN, "text": "\xc3\xa9"}',
        b"[" * 30_000,
    ]
    found, refused = read(write(tmp_path, b"\n".join(lines)))
    assert found[0] == {"k": 1.0} and found[8] == {"k": 8.0, "list": [{"a": 1, "a:": 2}], "text": '":'}
    assert sorted(found) == [0, 8, 9] and found[9]["text"] == "é"
    assert {row: bad.reason for row, bad in refused.items()} == {
        1: "duplicate_key",
        2: "not_utf8",
        3: "not_utf8",
        4: "missing_value",
        6: "not_json",
        7: "not_json",
        10: "not_json",
    }
    assert "line 2: 'k' occurs twice" in refused[1].detail
    assert "row 3: 'text' = '\\ud83dx'" in refused[2].detail
    for bad in refused.values():
        (bad.detail + bad.record).encode()  # what is said of a row can be written


def test_half_a_surrogate_pair_in_a_log(tmp_path: Path) -> None:
    log = Log(tmp_path)
    places = {"jobs": str(CASES / "raw_errors" / "jobs.csv"), "impressions": str(CASES / "raw_errors" / "lone_surrogate.jsonl")}
    assert log.run(places=places, with_users=False)["impressions_out"] == 460
    assert log.reasons() == {("lone_surrogate.jsonl", 5): "not_utf8"}


def test_files_that_are_no_json(tmp_path: Path) -> None:
    for text, message in (("id,v\n1,a\n", "holds no JSON object.*CSV ends in .csv"), ("{}", "no JSON object"), ("", "empty")):
        with pytest.raises(DataError, match=message):
            json_files.columns(str(write(tmp_path, text)), NOTHING)


def test_wanted_keys_are_found_wherever_they_are(tmp_path: Path) -> None:
    lines = [{"a": i} for i in range(3_000)] + [{"late": 1, "later": 2}]
    for text in ("\n".join(map(json.dumps, lines)), json.dumps(lines)):
        file = str(write(tmp_path, text))
        assert json_files.columns(file, NOTHING) == ["a"]
        assert json_files.columns(file, frozenset({"late"})) == ["a", "late"]


def test_users_whose_wishes_are_objects(tmp_path: Path) -> None:
    log = Log(tmp_path)
    raw = CASES / "raw_errors"
    places = {"jobs": str(raw / "jobs.csv"), "impressions": str(raw / "good.csv"), "users": str(raw / "users_structs.jsonl")}
    numbers = log.run(places=places)
    assert numbers["users_in"] == 12 and numbers["jobs_out"] == 30
    assert {row["past_titles"][0] for row in log.table("users") if row["past_titles"]} <= {
        row["title"] for row in log.table("jobs")
    }


def test_an_indented_log(log: Log) -> None:
    log.run()
    expected = log.shown()
    file = log.folder / "indented.json"
    file.write_text(
        "\n".join(json.dumps({k: plain(v) for k, v in row.items() if v is not None}, indent=2) for row in log.impressions)
    )
    log.run(places={"impressions": str(file)})
    assert log.shown() == expected
