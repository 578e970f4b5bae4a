"""CSV taken apart: no line is lost inside a field, and what a writer meant is what is read."""

import csv
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tritower.errors import DataError, SchemaError
from tritower.ingest import csv_files, csv_records
from tritower.ingest.raw import Refused

from tests.support.ingest_log import Log

CASES = Path(__file__).parents[2] / "data" / "cases"


def read(file: Path) -> tuple[dict[int, list[str]], dict[int, Refused]]:
    """The rows of a file and the refused ones, by row number."""
    rows: dict[int, list[str]] = {}
    refused: dict[int, Refused] = {}
    for batch in csv_files.read(str(file)):
        for number, row in zip(batch.rows.to_pylist(), batch.table.to_pylist(), strict=True):
            assert number not in rows
            rows[number] = [value.decode() for value in row.values()]
        refused |= {bad.row: bad for bad in batch.refused}
    assert not rows.keys() & refused.keys()
    return rows, refused


def write(tmp_path: Path, text: str | bytes) -> Path:
    file = tmp_path / "t.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


TEXT = st.text(alphabet='ab1 "\\;\té', max_size=6)
LONG_TEXT = st.text(alphabet='ab1 "é\n', max_size=12)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(TEXT, TEXT, TEXT, LONG_TEXT), max_size=12),
    delimiter=st.sampled_from(",;\t|"),
    ends=st.sampled_from(["\n", "\r\n"]),
    every=st.booleans(),
    block=st.sampled_from([7, 64, 1 << 20]),
)
@example(rows=[("a", "", "", "")], delimiter=",", ends="\n", every=False, block=7)
def test_what_a_writer_wrote(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: list[tuple[str, ...]],
    delimiter: str,
    ends: str,
    every: bool,
    block: int,
) -> None:
    """Any texts, with quotes, delimiters and line ends in them, however the blocks fall."""
    out = io.StringIO(newline="")
    quoting = csv.QUOTE_ALL if every else csv.QUOTE_MINIMAL
    writer = csv.writer(out, delimiter=delimiter, lineterminator=ends, quoting=quoting)
    writer.writerow(["k", "v", "w", "text"])
    # Of two ways to read `"a\"` the writer of this test means the first; a file of the other kind is a test of its own.
    meant = [tuple(value.replace('\\"', '"') for value in row) for row in rows]
    writer.writerows(meant)
    monkeypatch.setattr(csv_files, "BLOCK_BYTES", block)
    found, refused = read(write(tmp_path, out.getvalue()))
    assert refused == {}
    assert found == {number: list(row) for number, row in enumerate(meant)}


WORDS = st.sampled_from(["nurse", "line cook", "truck driver 2", ""])
INJECTED = st.lists(st.tuples(st.integers(0, 29), st.integers(0, 4), st.sampled_from(["start", "middle", "end"])), max_size=4)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(
    words=st.lists(WORDS, min_size=30, max_size=30),
    injected=INJECTED,
    quoted=st.booleans(),
    block=st.sampled_from([50, 333, 1 << 20]),
)
@example(words=["nurse"] * 30, injected=[(4, 2, "start"), (9, 2, "end")], quoted=False, block=50)
@example(words=["nurse"] * 30, injected=[(29, 4, "start")], quoted=False, block=1 << 20)
@example(words=["nurse"] * 30, injected=[(3, 4, "end"), (4, 0, "start")], quoted=True, block=333)
def test_a_stray_quote_costs_its_own_line_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], injected: list[Any], quoted: bool, block: int
) -> None:
    """Every line is a row or a refusal, and a line that nothing was done to is read as it was written."""
    rows = [
        [f"r{i:03d}", f"2026-01-{i % 28 + 1:02d}T00:00", word, str(i % 2 == 0), f"u{i % 7}"] for i, word in enumerate(words)
    ]
    lines = [[f'"{value}"' if quoted else value for value in row] for row in rows]
    for line, field, place in injected:
        text = lines[line][field]
        at = {"start": 0, "middle": len(text) // 2, "end": len(text)}[place]
        lines[line][field] = text[:at] + '"' + text[at:]
    monkeypatch.setattr(csv_files, "BLOCK_BYTES", block)
    text = "id,ts,query,clicked,user\n" + "\n".join(",".join(line) for line in lines) + "\n"
    found, refused = read(write(tmp_path, text))
    touched = {line for line, _, _ in injected}
    assert sorted(found.keys() | refused.keys()) == list(range(30))
    assert refused.keys() <= touched
    assert all(found[i] == rows[i] for i in range(30) if i not in touched)
    assert all(f"line {i + 2}:" in bad.detail for i, bad in refused.items())


def test_an_open_quote_in_a_log(tmp_path: Path) -> None:
    log = Log(tmp_path, ".csv")
    places = {name: str(CASES / place) for name, place in
              {"jobs": "raw_errors/jobs.csv", "impressions": "csv_open_quote/impressions.csv"}.items()}  # fmt: skip
    numbers = log.run(places=places, with_users=False)
    assert (numbers["impressions_in"], numbers["impressions_out"]) == (1140, 1139)
    (row,) = log.table("quarantine")
    assert (row["source"], row["source_row"], row["reason"]) == (places["impressions"], 499, "bad_quotes")
    assert "line 501: a field's quote is never closed" in row["detail"]
    assert row["record"].startswith('q00086,2026-01-11T00:29:33+00:00,u001,"sales manager,1024')


@pytest.mark.parametrize("name", ["jobs_title.csv", "jobs_description.csv"])
def test_quotes_behind_a_backslash(tmp_path: Path, name: str) -> None:
    log = Log(tmp_path, ".csv")
    places = {"jobs": str(CASES / "csv_backslash" / name), "impressions": str(CASES / "raw_errors" / "good.csv")}
    assert log.run(places=places, with_users=False)["jobs_out"] == 30
    first = log.table("jobs")[0]
    expected = ('Registered Nurse "A" shift', "text") if "title" in name else ("Registered Nurse", 'we say "hi, all" daily')
    assert (first["title"], first["description"]) == expected


def test_both_ways_to_write_a_quote(tmp_path: Path) -> None:
    text = (
        'id,title,text\n1,"a ""b"" c",x\n2,"a \\"b\\", c",x\n3,"C:\\\\dir \\"x\\"",y\n'
        '4,"5\\"",z\n5,"C:\\",z\n6,5" pipe,"z\n\\"w\\""\n'
    )
    found, refused = read(write(tmp_path, text))
    assert refused == {}
    assert [row[1] for row in found.values()] == ['a "b" c', 'a "b", c', 'C:\\dir "x"', '5"', "C:\\", '5" pipe']
    assert found[5][2] == 'z\n"w"'


def test_long_and_listy_texts_are_read(tmp_path: Path) -> None:
    """Several lines of a text are no rows, though they have as many commas as the header."""
    texts = [f"We offer\nhealth, dental, vision, pension\nand {i} more" for i in range(40)]
    texts += ["short\nhealth, dental, vision, 401k", "one\n\ntwo\r\nthree", "x" * 200_000 + "\nend"]
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(["job_id", "title", "company", "description"])
    writer.writerows([i, "Nurse", f"Acme {i}", text] for i, text in enumerate(texts))
    found, refused = read(write(tmp_path, out.getvalue()))
    assert refused == {}
    assert [row[3] for row in found.values()] == texts


def test_a_field_that_nobody_closes_is_no_longer_than_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held while the closing quote is looked for is bounded; behind it rows are read again."""
    monkeypatch.setattr(csv_records, "LONGEST_RECORD", 1_000)
    monkeypatch.setattr(csv_files, "BLOCK_BYTES", 500)
    lines = [f"{i},word {i}" for i in range(2_000)]
    lines[3] = '3,"word 3'
    found, refused = read(write(tmp_path, "id,text\n" + "\n".join(lines)))
    assert list(refused) == [3] and len(found) == 1_999
    assert found[1_999] == ["1999", "word 1999"]


def test_line_ends_and_marks_of_any_kind(tmp_path: Path) -> None:
    expected = {0: ["1", "a"], 1: ["2", "b"], 2: ["3", "c"]}
    for text in (
        "id,v\n1,a\n2,b\n3,c\n",
        "id,v\r\n1,a\r\n2,b\r\n3,c",
        "id,v\r1,a\r2,b\r3,c\r",
        "id,v\r1,a\r2,b\r3,c",
        "id,v\n1,a\r\n2,b\r3,c\n",
        "\ufeffid,v\r\n1,a\n\n2,b\r\n\r\n3,c\n\n",
        "id,v,\n1,a,\n2,b,\n3,c,\n",
        "id,v\n1,a,\n2,b,\n3,c,\n",
        '"id","v"\n"1","a"\n2,"b"\n"3",c\n',
        "id\tv\n1\ta\n2\tb\n3\tc",
    ):
        found, refused = read(write(tmp_path, text))
        assert refused == {} and {row: values[:2] for row, values in found.items()} == expected, text


def test_lines_that_are_no_rows(tmp_path: Path) -> None:
    text = b'id,v\n1,a\nid,v\n2\n3,b,c\n\xff,x,y\n4,"q"z\n5,c\n   \n6,\x00\n'
    found, refused = read(write(tmp_path, text))
    assert found == {0: ["1", "a"], 6: ["5", "c"], 8: ["6", "\0"]}
    assert {row: (bad.reason, bad.detail.split(" (")[0]) for row, bad in refused.items()} == {
        1: ("repeated_header", "line 3: the names of the columns again"),
        2: ("wrong_field_count", "line 4: 1 fields, expected 2"),
        3: ("wrong_field_count", "line 5: 3 fields, expected 2"),
        4: ("wrong_field_count", "line 6: 3 fields, expected 2"),
        5: ("bad_quotes", "line 7: text follows the closing quote of field 2"),
        7: ("wrong_field_count", "line 9: 1 fields, expected 2"),
    }
    assert refused[4].record == "\\xff,x,y"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("a,b\n1,2\nb,a\n3,4\n", DataError, "line 3 names the columns again, in another order.*give each its own"),
        ("a,b,a\n", SchemaError, "column 'a' occurs twice"),
        ('a,"b\n1,2\n', DataError, "a quote in the header is never closed"),
        ('{"a": 1}\n', DataError, "JSON, not CSV.*jsonl"),
        ("\n1,2\n", DataError, "no header"),
        (",,\n1,2,3\n", DataError, "no header"),
        ("a,b\n1,2\n".encode("utf-16-le"), DataError, "UTF-16"),
        ("a,é\n".encode("latin-1"), DataError, "header is not UTF-8"),
        (b"PK\x03\x04....", DataError, "ZIP archive or a spreadsheet"),
        (b"PAR1....", DataError, "is a Parquet file"),
    ],
)
def test_files_that_are_no_csv(tmp_path: Path, text: str | bytes, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        read(write(tmp_path, text))
    assert "t.csv" in str(caught.value)


def test_a_parquet_log_and_a_csv_log_agree(tmp_path: Path) -> None:
    """The same rows by way of every text format."""
    tables = []
    for suffix in (".parquet", ".csv", ".jsonl"):
        (tmp_path / suffix[1:]).mkdir()
        log = Log(tmp_path / suffix[1:], suffix)
        log.run()
        tables.append((log.shown(), log.table("requests"), Counter(map(json.dumps, log.reasons().values()))))
    assert tables[0] == tables[1] == tables[2]
