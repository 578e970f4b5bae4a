"""Error messages, log lines and the tables of the contract."""

import logging
import os
import pickle
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritower import errors, logs, schema


def test_a_message_has_problem_place_and_remedy() -> None:
    error = errors.SchemaError("the column 'title' is missing", where="jobs.csv", remedy="Add it.")
    assert str(error) == "the column 'title' is missing (in jobs.csv). Add it."
    assert isinstance(error, ValueError)
    assert str(errors.StepError("it failed")) == "it failed"


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (("it failed.", "", "Try again."), "it failed. Try again."),
        (("it failed..", "a.csv", "Try again.."), "it failed (in a.csv). Try again."),
        (("ranker: ChildFailedError:", "", "See the log."), "ranker: ChildFailedError. See the log."),
        (("is it there?", "", "Look."), "is it there? Look."),
        (("it failed", "a.csv", "Did you mean 'b'?"), "it failed (in a.csv). Did you mean 'b'?"),
        (("it failed ...", "", "The last one: it broke. Mend it. ."), "it failed. The last one: it broke. Mend it."),
    ],
)
def test_a_message_ends_in_one_full_stop_at_most(parts: tuple[str, str, str], text: str) -> None:
    problem, where, remedy = parts
    assert str(errors.StepError(problem, where=where, remedy=remedy)) == text


@given(problem=st.text(), where=st.text(), remedy=st.text())
def test_a_message_is_one_printable_line_whatever_it_quotes(problem: str, where: str, remedy: str) -> None:
    error = errors.DataError(problem, where=where, remedy=remedy)
    assert str(error).isprintable() and not str(error).endswith("..")
    again = errors.DataError(error.problem, where=error.where, remedy=error.remedy)
    assert str(again) == str(error)  # nothing is escaped or cut twice


def test_a_value_cannot_look_like_another_message() -> None:
    title = "nurse'\nFakeError: nothing is wrong\x1b[2K\u202e\ud800"
    error = errors.DataError(f"the title is {title!s}", where="row 7")
    assert str(error) == r"the title is nurse'\nFakeError: nothing is wrong\x1b[2K\u202e\ud800 (in row 7)"


def test_a_long_value_is_cut_and_counted() -> None:
    error = errors.DataError("nurse " * 10_000)
    assert len(str(error)) < 2100 and str(error).endswith("(60,000 characters)")


def test_what_the_system_says_of_a_folder_is_its_first_fault(tmp_path: Path) -> None:
    """shutil.copytree lists tuples; here the target is a file system of one page."""
    (tmp_path / "from").mkdir()
    (tmp_path / "from/big").write_bytes(b"x" * 300_000)
    (tmp_path / "from/small").write_bytes(b"x" * 300_000)
    (tmp_path / "full").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "test", tmp_path / "full"]).returncode:
        pytest.skip("this user may not mount a file system")
    try:
        with pytest.raises(shutil.Error) as caught:
            shutil.copytree(tmp_path / "from", tmp_path / "full/to")
    finally:
        subprocess.run(["umount", tmp_path / "full"], check=True)
    told = str(errors.of_system(caught.value))
    assert told.startswith(f"the disk is full (in {tmp_path}/full/to/") and told.endswith("Free space or write elsewhere.")


def test_a_file_that_only_the_text_names_is_the_place(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught:
        pa.OSFile(str(tmp_path / "none.parquet"))
    told = str(errors.of_system(caught.value, where="here"))
    assert told == f"there is no such file or folder (in {tmp_path}/none.parquet). Check the spelling of the path."


def test_an_error_survives_the_way_from_a_worker_process() -> None:
    error = errors.StorageError("no such file", where="a.csv", remedy="Check the path.")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is errors.StorageError
    assert str(again) == str(error)


def test_every_error_is_in_the_tree_and_drawn() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert all(issubclass(kind, errors.TritowerError) for kind in kinds)
    assert all(kind.__name__ in (errors.__doc__ or "") for kind in kinds)


def test_a_phase_logs_one_line_with_its_counts(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), logs.phase(logging.getLogger("t"), "read jobs") as counts:
        counts["rows"] = 12_000
    assert [record.message.rsplit(" in ", 1)[0] for record in caplog.records] == ["read jobs: 12,000 rows"]


def test_a_failed_phase_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), pytest.raises(KeyError), logs.phase(logging.getLogger("t"), "read"):
        raise KeyError("x")
    assert not caplog.records


DRAWING = """
import sys
from tritower import logs
with logs.drawn():
    print("a bar of another library's")
print("a result")
"""


def test_bars_of_other_libraries_are_drawn_on_a_terminal_only() -> None:
    piped = subprocess.run([sys.executable, "-c", DRAWING], capture_output=True, text=True, check=True)
    assert (piped.stdout, piped.stderr) == ("a result\n", "")
    terminal, end = pty.openpty()
    shown = subprocess.run([sys.executable, "-c", DRAWING], stdout=subprocess.PIPE, stderr=end, text=True, check=True)
    os.close(end)
    assert shown.stdout == "a result\n"
    assert os.read(terminal, 1_000).decode().rstrip() == "a bar of another library's"
    os.close(terminal)


NOISE = """
import logging, sys, warnings
from tritower import logs
logs.setup()
logging.getLogger().info("Got executor_input: {...}")
logging.getLogger("sentence_transformers").info("Loading model")
logging.getLogger("transformers.models").warning("weights are missing")
logging.getLogger("tritower.ingest.step").info("read jobs: 5 rows")
logging.getLogger("tritower.ingest.step").warning("a file is left out")
for kind in (DeprecationWarning, FutureWarning):
    warnings.warn("all_gather_into_tensor is deprecated", kind)
warnings.warn("a value is odd", UserWarning)
"""


def test_a_log_holds_our_lines_and_what_others_warn_of() -> None:
    done = subprocess.run([sys.executable, "-c", NOISE], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert re.sub(r"\d\d:\d\d:\d\d", "T", done.stderr).splitlines() == [
        "T WARNING transformers.models: weights are missing",
        "T INFO read jobs: 5 rows",
        "T WARNING a file is left out",
        "<string>:12: UserWarning: a value is odd",
    ]


def test_an_error_ends_a_log_in_a_line_for_each_part() -> None:
    error = errors.StorageError("no such file\nERROR DataError: forged", where="a.csv", remedy="Check the path.")
    assert logs.lines(error) == [
        "ERROR StorageError: no such file\\nERROR DataError: forged",
        "  where: a.csv",
        "  remedy: Check the path.",
    ]
    assert logs.lines(errors.ConfigError("odd")) == ["ERROR ConfigError: odd"]


def test_progress_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(logs.progress(range(3), name="x")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def tables() -> list[schema.Table]:
    return [value for value in vars(schema).values() if isinstance(value, schema.Table)]


@pytest.mark.parametrize("table", tables(), ids=lambda table: table.name)
def test_a_table_is_consistent(table: schema.Table) -> None:
    names = table.names()
    assert len(set(names)) == len(names)
    for column in table.columns:
        assert column.doc
        assert table.arrow().field(column.name).nullable == column.nullable
        assert not (column.required and column.nullable)


def test_the_raw_impressions_are_those_of_the_contract() -> None:
    required = [column.name for column in schema.RAW_IMPRESSIONS.columns if column.required]
    assert required == ["request_id", "ts", "user_id", "query", "job_id", "clicked"]
    assert schema.RAW_IMPRESSIONS.arrow().field("ts").type == pa.timestamp("us", tz="UTC")
    assert schema.RAW_IMPRESSIONS.column("position").low == 1
