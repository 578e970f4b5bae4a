"""Error messages, log lines and the tables of the contract."""

import logging
import pickle

import pyarrow as pa
import pytest
from tritower import errors, logs, schema


def test_a_message_has_problem_place_and_remedy() -> None:
    error = errors.SchemaError("the column 'title' is missing", where="jobs.csv", remedy="Add it.")
    assert str(error) == "the column 'title' is missing (in jobs.csv). Add it."
    assert isinstance(error, ValueError)
    assert str(errors.StepError("it failed")) == "it failed"


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
