import html
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from tritower.config import from_dict
from tritower.errors import ConfigError, DataError, SchemaError
from tritower.experiment import __main__ as command
from tritower.experiment import analysis, ratio, report, simulated_log, step
from tritower.experiment.analysis import Result
from tritower.experiment.config import AnalysisConfig, Faults, Habits
from tritower.experiment.simulation import Played
from tritower.experiment.tables import Found, Tables

WHOLE = {"start": "2026-01-01T00:00:00Z", "cap_quantile": 1.0, "salt": "test", "planned_days": 21}
RAILS = [{"name": "unsubscribe", "margin": 0.5}, {"name": "latency_ms", "of": "events", "margin": 0.05}]


def played(folder: Path, *, effect: float = 0.2, users: int = 3000, **faults: Any) -> Played:
    habits = Habits(effect=effect)
    return simulated_log.write(folder, users=users, days=14, seed=5, habits=habits, faults=Faults(**faults))


def read(folder: Path, **knobs: Any) -> tuple[Found, Result]:
    config = from_dict(AnalysisConfig, WHOLE | knobs)
    files = {name: [str(folder / f"{name}.parquet")] for name in ("events", "past")}
    with Tables.open([str(folder / "shown.parquet")], config, **files) as tables:
        return analysis.analyse(tables, config)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Played]:
    folder = tmp_path_factory.mktemp("test") / "sound"
    return folder, played(folder)


def test_the_tables_say_what_was_played_on_every_day(sound: tuple[Path, Played]) -> None:
    found, result = read(sound[0], segments=["country"], guardrails=RAILS)
    for day in (1, 5, 14):
        arms = sound[1].arms(day, past=True)
        for arm, moments in zip(("control", "treated"), arms, strict=True):
            ours = found.total[arm][day - 1]
            assert ours.users == moments.users
            assert ours.mean_V == pytest.approx(moments.mean_V) and ours.cov_VV == pytest.approx(moments.cov_VV)
        assert result.by_day[day - 1].log_error == pytest.approx(ratio.adjusted(*arms)[0].log_error)
    assert sum(part.users for part in result.segments) == sum(found.units.values())
    assert [rail.guardrail.name for rail in result.rails] == ["unsubscribe", "latency_ms"]
    assert result.rails[1].state == "safe" and abs(result.rails[1].change) < 0.05
    assert result.saved > 0.5 and result.effect is not None and result.plain is not None
    assert result.effect.log_error < result.plain.log_error
    assert result.naive_error < result.plain.log_error / 2  # impressions of a user are not independent
    assert not result.reasons and not any(found.left_out.values())
    assert [look.day for look in result.looks] == [7, 14]


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ({"moved": 0.3}, "units where 50.0% should be treated"),
        ({"wrong_hash": 0.02}, "have another arm than the hash of 'test' gives them"),
        ({"mixed": 0.02}, "were shown both arms"),
        ({"clock": 0.05}, "older than their exposures: clocks differ"),
    ],
)
def test_a_test_that_must_not_be_believed(tmp_path: Path, faults: dict[str, float], words: str) -> None:
    _, result = read_faulty(tmp_path, faults)
    assert result.decision == "invalid" and words in result.sentence
    assert any(words in reason for reason in result.reasons)


def read_faulty(tmp_path: Path, faults: dict[str, Any]) -> tuple[Found, Result]:
    played(tmp_path / "faulty", **faults)
    return read(tmp_path / "faulty")


def test_what_comes_twice_counts_once(sound: tuple[Path, Played], tmp_path: Path) -> None:
    clean, _ = read(sound[0])
    found, result = read_faulty(tmp_path, {"twice": 0.1})
    assert found.left_out["rows that came twice"] > 1000 and not result.reasons and not result.warnings
    assert result.notes == [f"{found.left_out['rows that came twice']:,} exposures came more than once; each counts once."]
    assert found.total["treated"][-1].mean_V == pytest.approx(clean.total["treated"][-1].mean_V)


def test_machines_and_exposures_without_an_arm_are_left_out_and_named(sound: tuple[Path, Played], tmp_path: Path) -> None:
    clean, _ = read(sound[0])
    found, result = read_faulty(tmp_path, {"bots": 12})
    assert found.by_arm == {"units that click on nearly everything": (0, 12)}
    assert any("0 of control, 12 of treated; that is no chance" in text for text in result.warnings)
    assert found.total["treated"][-1].mean_V == pytest.approx(clean.total["treated"][-1].mean_V)
    assert read(tmp_path / "faulty", bot_impressions_per_day=150)[0].by_arm == {
        "units shown more than a person can see in a day": (0, 12)
    }
    played(tmp_path / "nobody", unassigned=0.05)
    found, result = read(tmp_path / "nobody")
    assert found.left_out["rows without an arm"] > 500 and any("have no arm" in text for text in result.notes)


def test_late_clicks_do_not_count_and_busy_units_count_less(tmp_path: Path) -> None:
    played(tmp_path / "late", late=0.3)
    day, week = read(tmp_path / "late")[0], read(tmp_path / "late", click_window_h=168)[0]
    late = sum(count for name, count in day.clocks.items() if "later than 24 h" in name)
    clicks = [sum(found.total[arm][-1].users * found.total[arm][-1].mean_V[0] for arm in found.total) for found in (day, week)]
    assert late > 100 and clicks[1] - clicks[0] == pytest.approx(late)
    capped = read(tmp_path / "late", cap_quantile=0.9)[0]
    assert capped.cap < day.cap and capped.total["control"][-1].mean_V[1] < day.total["control"][-1].mean_V[1]


def test_a_users_own_table_in_csv_without_past_or_keys(sound: tuple[Path, Played], tmp_path: Path) -> None:
    table = pq.read_table(sound[0] / "shown.parquet", columns=["ts", "unit", "arm", "clicked"]).rename_columns(
        ["ts", "user_id", "arm", "clicked"]
    )
    (tmp_path / "own").mkdir()
    pa.csv.write_csv(table, tmp_path / "own" / "shown.csv")
    report, figures = tmp_path / "report.html", tmp_path / "figures.json"
    knobs = from_dict(AnalysisConfig, WHOLE)
    found = step.analyse(shown=tmp_path / "own", config=knobs, report=report, figures=figures)
    assert found["uplift_pct"] == pytest.approx(100 * ratio.effect(*sound[1].arms()).relative, abs=1e-3)
    assert found["cuped_saved_pct"] == 0
    text = report.read_text()
    assert "<h1" in text and "There is no past of these users" in text
    assert json.loads(figures.read_text())["sentence"] == found["sentence"]


def test_what_may_be_claimed_follows_the_looks(sound: tuple[Path, Played], tmp_path: Path) -> None:
    _, result = read(sound[0])
    crossed = next(look for look in result.looks if look.crossed)
    assert result.decision == "stop" and "You may stop: treated is better" in result.sentence
    assert crossed.bound > 1.96 and crossed.effect.interval(crossed.bound)[0] > 0
    _, between = read(sound[0], look_days=30, planned_days=60)
    assert between.decision == "go on" and "The next look is after day 30" in between.sentence and not between.looks
    assert between.effect is not None and between.effect == result.effect
    low, high = between.effect.interval(1.96)
    assert between.interval[0] < low and between.interval[1] > high  # only what holds on all days holds today
    played(tmp_path / "null", effect=0.0)
    _, ended = read(tmp_path / "null", planned_days=14)
    assert ended.decision == "ended" and "no difference is shown" in ended.sentence


def test_a_guardrail_that_is_harmed_stops_the_test(sound: tuple[Path, Played], tmp_path: Path) -> None:
    events = pq.read_table(sound[0] / "events.parquet")
    arms = dict(zip(*pq.read_table(sound[0] / "shown.parquet", columns=["unit", "arm"]).to_pydict().values(), strict=True))
    slower = [
        value * (1.5 if arms.get(unit) == "treated" and name == "latency_ms" else 1)
        for unit, name, value in zip(*(events[column].to_pylist() for column in ("unit", "name", "value")), strict=True)
    ]
    pq.write_table(events.set_column(3, "value", pa.array(slower)), tmp_path / "events.parquet")
    for name in ("shown", "past"):
        (tmp_path / f"{name}.parquet").symlink_to(sound[0] / f"{name}.parquet")
    _, result = read(tmp_path, guardrails=RAILS)
    assert result.decision == "stop" and "harms latency_ms" in result.sentence
    assert result.rails[1].change == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("columns", "knobs", "error", "words"),
    [
        (["ts", "unit", "clicked"], {}, SchemaError, "'arm' is missing"),
        (["ts", "arm", "clicked"], {}, SchemaError, "'user_id' is missing"),
        (["ts", "unit", "arm", "clicked"], {"segments": ["age"]}, SchemaError, "'age' is no column"),
        (["ts", "unit", "arm", "clicked"], {"control": "old"}, None, ""),
        (
            ["ts", "unit", "arm", "clicked"],
            {"control": "old", "treated": "new"},
            DataError,
            "no row has the arm 'old' or 'new'",
        ),
        (["ts", "unit", "arm", "clicked"], {"start": "yesterday"}, ConfigError, "start is 'yesterday'"),
        (["ts", "unit", "arm", "clicked"], {"memory_limit": "much"}, ConfigError, "DuckDB refuses"),
    ],
)
def test_bad_input_is_named(
    sound: tuple[Path, Played],
    tmp_path: Path,
    columns: list[str],
    knobs: dict[str, Any],
    error: type[Exception] | None,
    words: str,
) -> None:
    pq.write_table(pq.read_table(sound[0] / "shown.parquet", columns=columns), tmp_path / "shown.parquet")
    config = from_dict(AnalysisConfig, WHOLE | knobs)
    if error is None:
        assert step.analyse(shown=tmp_path / "shown.parquet", config=config)["decision"] == "invalid"  # one arm is empty
        return
    with pytest.raises(error, match=words):
        step.analyse(shown=tmp_path / "shown.parquet", config=config)


def test_no_file_and_no_such_event(sound: tuple[Path, Played], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(DataError, match="no Parquet or CSV file"):
        step.analyse(shown=tmp_path, config=AnalysisConfig())
    with pytest.raises(DataError, match=r"no event 'refund'.*latency_ms, unsubscribe"):
        read(sound[0], guardrails=[{"name": "refund"}])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "made"
    size = ["--users", "1500", "--days", "8", "--config", '{"effect": 0.3}']
    assert command.main(["simulate", "--out", str(folder), *size]) == 0
    assert command.main(["analyse", "--shown", f"{folder}/shown.parquet", "--past", f"{folder}/past.parquet"]) == 0
    assert command.main(["plan", "--log", f"{folder}/shown.parquet", "--config", '{"unit": "unit", "cuped_days": 3}']) == 0
    printed = capsys.readouterr().out
    assert "Do not stop yet" in printed and "with CUPED, which takes away" in printed and " users, " in printed
    assert command.main(["plan", "--log", f"{folder}/shown.parquet", "--config", '{"effect": -1}']) == 2
    assert "effect is -1" in capsys.readouterr().err


def test_rows_without_a_key_all_count(tmp_path: Path) -> None:
    requests, jobs = ["a", "a", None, None, "b", "b"], ["1", "1", "1", "1", None, None]
    table = pa.table(
        {
            "request_id": requests,
            "job_id": jobs,
            "unit": ["u", "u", "u", "v", "v", "w"],
            "arm": ["control"] * 4 + ["treated"] * 2,
        }
        | {"ts": ["2026-01-01T10:00:00Z"] * 6, "clicked": [False, True, False, True, False, True]}
    )
    pq.write_table(table, tmp_path / "shown.parquet")
    with Tables.open([str(tmp_path / "shown.parquet")], AnalysisConfig(cap_quantile=1.0)) as tables:
        found = tables.read()
    assert found.left_out["rows that came twice"] == 1 and found.left_out["units in both arms"] == 1  # v
    assert found.units == {"control": 1, "treated": 1}
    assert found.total["control"][0].mean_V[:2].tolist() == [
        1,
        2,
    ]  # the copy says that it was clicked; the row without a request


def test_the_report_names_all_that_is_wrong(tmp_path: Path) -> None:
    faults = {
        "moved": 0.3,
        "wrong_hash": 0.05,
        "mixed": 0.02,
        "clock": 0.05,
        "twice": 0.02,
        "unassigned": 0.02,
        "late": 0.2,
        "bots": 40,
    }
    found, result = read_faulty(tmp_path, faults)
    page = html.unescape(report.html(found, result, from_dict(AnalysisConfig, WHOLE)))
    copies = found.left_out["rows that came twice"]
    for words in (
        "Do not believe this test, and claim nothing",
        "units where 50.0% should be treated; by chance that happens in fewer than one of 1,000 tests",
        "units have another arm than the hash of 'test' gives them",
        "units were shown both arms: the assignment did not hold",
        "clicks of treated are older than their exposures: clocks differ",
        f"{copies:,} exposures came more than once; each counts once.",
        "exposures have no arm",
        "Units that click on nearly everything: 0 of control, ",
        "clicks later than 24 h: control",
    ):
        assert words in page, words
