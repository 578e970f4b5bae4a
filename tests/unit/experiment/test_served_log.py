"""The commands `interleaving` and `off-policy` on files, as a user runs them."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tritower import schema
from tritower.experiment.__main__ import main
from tritower.experiment.click_model import with_model
from tritower.experiment.draft import team_draft
from tritower.experiment.off_policy import Rows

USERS = 400


def drafts(*, salt: str = "s", better: float = 0.3) -> list[dict[str, Any]]:
    """Two lists a user: b's picks are clicked with a chance of `better`, a's of .2; a row comes twice, a list is a's alone."""
    random, rows = np.random.default_rng(0), []
    for number in range(2 * USERS):
        for place, (job, team) in enumerate(team_draft("xabcd", "xefgb", 5, request_id=f"r{number}", salt="s"), 1):
            clicked = random.random() < {"a": 0.2, "b": better, "": 0.9}[team]
            rows.append(
                {"request_id": f"r{number}", "job_id": job, "user_id": f"u{number % USERS}", "position": place, "team": team,
                 "interleaving": salt, "failed": "", "bundle": f"bundle {team}", "clicked": clicked}
            )  # fmt: skip
    alone = {"request_id": "alone", "job_id": "x", "user_id": "u0", "position": 1, "team": "", "failed": "b", "clicked": True}
    return [*rows, rows[0], alone | {"interleaving": salt, "bundle": "bundle a"}]


def by_hand(rows: list[dict[str, Any]]) -> tuple[int, int, int]:
    """Users for a, users for b, ties."""
    points: dict[str, list[int]] = {}
    seen = set()
    for row in rows:
        if row["clicked"] and row["team"] and (row["request_id"], row["job_id"]) not in seen:
            points.setdefault(row["user_id"], []).append(1 if row["team"] == "b" else -1)
        seen.add((row["request_id"], row["job_id"]))
    sums = [sum(one) for one in points.values()]
    return sum(one < 0 for one in sums), sum(one > 0 for one in sums), sum(one == 0 for one in sums)


def table(rows: list[dict[str, Any]], path: Path, *, without: tuple[str, ...] = ()) -> str:
    rows = [{name: value for name, value in row.items() if name not in without} for row in rows]
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_votes_of_a_log_are_those_counted_by_hand(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = drafts()
    figures = str(tmp_path / "figures.json")
    given = ["interleaving", "--shown", table(rows, tmp_path / f"shown.{kind}"), "--figures", figures]
    assert main(given) == 0
    said = capsys.readouterr().out
    assert said.startswith("Users prefer b: ")
    found = json.loads(Path(figures).read_text())
    a, b, ties = by_hand(rows)
    votes = found["preference"]
    assert votes["users"] == a + b + ties and votes["share_b"] == pytest.approx((b + ties / 2) / (a + b + ties))
    for_b = np.repeat([0, 1, 0.5], [a, b, ties])
    assert votes["high"] - votes["share_b"] == pytest.approx(1.959964 * for_b.std(ddof=1) / len(for_b) ** 0.5)
    assert (found["lists"], found["users"], found["failed"], found["machines"]) == (2 * USERS, USERS, 1, 0)
    assert found["reasons"] == found["warnings"] == []
    clicks = [row for row in rows if row["clicked"]]
    apart = ["--shown", table(rows, tmp_path / "served.parquet", without=("clicked",))]
    apart += ["--clicks", table(clicks, tmp_path / "clicks.csv", without=("team",)), "--figures", figures]
    assert main(["interleaving", *apart]) == 0
    assert json.loads(Path(figures).read_text()) == found, "the served log with a table of clicks says the same"


def test_coins_that_are_not_the_requests_are_not_believed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["interleaving", "--shown", table(drafts(salt="another"), tmp_path / "shown.parquet")]) == 0
    assert "Do not believe this: " in (said := capsys.readouterr().out) and "first picks are not what the coin" in said
    rows = [row | {"interleaving": ""} for row in drafts() if team_draft("a", "b", 1, request_id=row["request_id"], salt="s")]
    kept = {row["request_id"] for row in rows if row["position"] == 2 and row["team"] == "a"}
    assert main(["interleaving", "--shown", table([r for r in rows if r["request_id"] in kept], tmp_path / "a.parquet")]) == 0
    assert "ranker a picks first in 100.0% of the lists" in capsys.readouterr().out


def test_nobody_wins_where_nobody_is_better_and_two_versions_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row | {"bundle": f"{row['bundle']} {row['user_id'] < 'u2'}"} for row in drafts(better=0.2)]
    assert main(["interleaving", "--shown", table(rows, tmp_path / "shown.parquet")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("No preference is sure: ") and "Ranker a was 2 versions" in said


def test_what_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = drafts()
    for without, words in (
        (("team",), ("the column 'team' is missing", "shown.parquet", "whose pick")),
        (("clicked",), ("the column 'clicked' is missing", "--clicks", "tritower.serving shown")),
        (("user_id",), ("the column 'unit' is missing",)),
    ):
        assert main(["interleaving", "--shown", table(rows, tmp_path / "shown.parquet", without=without)]) == 2
        said = capsys.readouterr().err
        assert all(word in said for word in words), said
    nobody = table([row | {"team": ""} for row in rows], tmp_path / "nobody.parquet")
    assert main(["interleaving", "--shown", nobody]) == 2 and "no list has teams" in capsys.readouterr().err


def shuffled(lists: int, places: int = 4) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Whole lists in random order, float32 propensities as in the log; the new ranker's scores."""
    random, rows, scores = np.random.default_rng(1), [], []
    for number in range(lists):
        appeal, order = random.beta(1, 6, places), random.permutation(places)
        for place, job in enumerate(order, 1):
            row = {"request_id": f"r{number}", "job_id": f"j{job}", "user_id": f"u{number // 3}", "position": place}
            clicked = bool(random.random() < appeal[job] / place**0.5)
            rows.append(row | {"propensity": np.float32(1 / places), "clicked": clicked})
            scores.append({"request_id": f"r{number}", "job_id": f"j{job}", "score": float(appeal[job])})
        rows.append({"request_id": f"r{number}", "job_id": "j9", "user_id": f"u{number // 3}", "position": places + 1,
                     "propensity": np.float32(1), "clicked": True})  # fmt: skip
    return rows, scores


def test_an_off_policy_estimate_of_a_log_is_the_sum_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, scores = shuffled(900)
    new, figures = table(scores, tmp_path / "scores.parquet"), str(tmp_path / "figures.json")
    given = ["off-policy", "--shown", table(rows, tmp_path / "shown.parquet"), "--scores", new, "--figures", figures]
    assert main(given) == 0
    found = json.loads(Path(figures).read_text())
    score = {(one["request_id"], one["job_id"]): one["score"] for one in scores}
    clicks = weights = 0.0
    for number in range(900):
        top = rows[5 * number : 5 * number + 4]
        best = sorted(top, key=lambda row: -score[row["request_id"], row["job_id"]])
        for row in top:
            if best[row["position"] - 1] is row:
                clicks, weights = clicks + 4 * row["clicked"], weights + 4
    assert found["ips"]["clicks"] == pytest.approx(clicks / 900)
    assert found["snips"]["clicks"] == pytest.approx(clicks / weights * 4)
    assert found["dr"]["low"] < found["dr"]["clicks"] < found["dr"]["high"]
    assert found["dr"]["clicks"] > found["dr"]["logged"], "sorting by the truth beats shuffling"
    assert "effective rows" in capsys.readouterr().out


def test_lists_with_holes_and_jobs_without_scores_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, scores = shuffled(200)
    new = table(scores, tmp_path / "scores.csv")
    holes = [row for row in rows if row["position"] != 3 or int(row["request_id"][1:]) < 80]
    cases = {
        "120 of 200 shuffled lists are not whole": (holes, new),
        "4 of 800 shuffled jobs have no score": (rows, table(scores[4:], tmp_path / "few.csv")),
        "no list was shuffled": ([row | {"propensity": 1.0} for row in rows], new),
        "only 40 effective rows": (rows[: 5 * 40], new),
    }  # fmt: skip
    for words, (given, scored) in cases.items():
        assert main(["off-policy", "--shown", table(given, tmp_path / "shown.parquet"), "--scores", scored]) == 2
        said = capsys.readouterr().err
        assert (words in said) or (words.startswith("only") and "effective rows are as the new ranker" in said), said


def test_a_models_rates_leave_out_the_users_own_clicks() -> None:
    """Two users in folds of their own: each is judged by the other's clicks. Rates by hand: position 0 .5, position 1 0."""
    rows = Rows(
        list_N=np.array([0, 0, 1, 1, 2, 2]), user_N=np.array([0, 0, 1, 1, 1, 1]),
        clicked_N=np.array([True, True, True, False, False, False]), propensity_N=np.full(6, 0.5), wanted_N=np.ones(6, bool),
    )  # fmt: skip
    position = np.array([0, 1] * 3)
    found = with_model(rows, position_N=position, rank_N=position[::-1], score_N=np.ones(6), folds=2)
    assert found.expected_N is not None and found.of_new_L is not None
    assert found.expected_N.tolist() == [0.5, 0.0, 1.0, 1.0, 1.0, 1.0]
    assert found.of_new_L.tolist() == [0.5, 2.0, 2.0]


def test_the_servers_columns_are_those_that_are_read() -> None:
    names = set(schema.SHOWN.names())
    assert {"team", "interleaving", "failed", "bundle", "position", "propensity", "request_id", "job_id", "user_id"} <= names
