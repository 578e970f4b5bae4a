"""The whole step on files, as the pipeline calls it."""

import json
import math
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tritower.errors import ArtifactError, DataError
from tritower.evaluation import step
from tritower.evaluation.config import EvaluationConfig

from pipelines import show

QUICK = EvaluationConfig()


def run(root, out, *, truth=True, config=QUICK, rivals=("baseline", "baseline_cos"), **more):
    """The step without its pages: their drawings take ten times as long as all else."""
    numbers = step.run(
        dataset=root / "dataset",
        features=root / "features",
        scores=root / "model",
        **{f"scores_{name}": root / name for name in rivals},
        truth=str(root / "truth") if truth else "",
        metrics=out / "metrics.json",
        config=config,
        **more,
    )
    return numbers, json.loads((out / "metrics.json").read_text())


def run_with_pages(root, out, **more):
    found = run(root, out, report=out / "report.html", summary=out / "summary.md", **more)
    return *found, (out / "report.html").read_text()


@pytest.fixture(scope="module")
def result(log, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluation")
    return out, *run_with_pages(log, out)


def test_metrics_file_has_the_promised_keys(result):
    _, _, document, _ = result
    for name in ("randomised", "logged"):
        for ranker in ("model", "baseline", "baseline_cos", "oracle"):
            assert {"auc", "map@1", "map@3"} <= document[name][ranker].keys()
        for key in ("lift", "lift_cos"):
            for metric in ("auc", "map@1", "map@3"):
                lift = document[name][key][metric]
                assert lift["low"] <= lift["value"] <= lift["high"]


def test_the_better_scores_come_out_better(result):
    _, numbers, document, _ = result
    for name in ("randomised", "logged"):
        auc = {ranker: document[name][ranker]["auc"] for ranker in ("baseline", "baseline_cos", "model", "oracle")}
        assert auc["baseline"] < auc["baseline_cos"] < auc["model"] < auc["oracle"]
        lift = document[name]["lift"]["auc"]
        assert lift["value"] == pytest.approx(auc["model"] / auc["baseline"] - 1)
        assert lift["low"] > 0
    assert numbers["randomised_auc"] == document["randomised"]["model"]["auc"]
    assert numbers["judged"] == 1 and numbers["warnings"] == 0
    assert all(math.isfinite(value) for value in numbers.values())


def test_slices_hold_every_test_row_once(result, log):
    _, _, document, _ = result
    rows = pq.read_metadata(log / "features" / "test" / "part-0000.parquet").num_rows
    assert document["randomised"]["rows"] + document["logged"]["rows"] == rows


def test_gate_and_slices_are_reported(result):
    _, _, document, text = result
    assert document["gate"]["word"] in ("pass", "hold") and document["gate"]["reasons"]
    assert document["slices"]["basis"] == "redrawn"
    local, elsewhere = document["slices"]["clicked in the searched city"], document["slices"]["clicked elsewhere"]
    assert local["requests"] < elsewhere["requests"]
    assert "Kinds of search" in text and "clicked elsewhere" in text


def test_error_browser_shows_searches_and_titles(result):
    *_, text = result
    wins = text[text.rindex("Where the triple tower wins most") : text.rindex("Where it loses most")]
    assert wins.count("<details") == 8 + 1  # and the next section
    assert "query " in wins and "Title " in wins and 'class="marked"' in wins


def test_equal_rankers_leave_the_error_browser_empty(log, tmp_path):
    root = tmp_path / "log"
    root.mkdir()
    for part in log.iterdir():
        (root / part.name).symlink_to(log / ("model" if part.name.startswith("baseline") else part.name))
    _, document, text = run_with_pages(root, tmp_path)
    assert document["randomised"]["lift"]["auc"]["value"] == 0.0
    assert "Where the triple tower wins most" not in text


class Page(HTMLParser):
    """Collects what a browser would fetch, and the ids."""

    def __init__(self):
        super().__init__()
        self.fetched, self.ids, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and not value.startswith("#"):
                self.fetched.append(value)
            if name == "id":
                self.ids.append(value)


def test_report_needs_no_network_and_its_drawings_do_not_collide(result):
    *_, text = result
    page = Page()
    page.feed(text)
    assert page.fetched == []
    assert "@import" not in text and "<script" not in text
    assert len(page.ids) == len(set(page.ids))
    assert page.tags.count("svg") >= 10
    for used in re.findall(r"url\(#([^)]+)\)", text):
        assert used in page.ids


def test_report_says_where_the_figures_come_from(result, log, tmp_path):
    *_, text = result
    assert "generated log" in text and "No public data set" in text
    _, document, text = run_with_pages(log, tmp_path, truth=False)
    assert "oracle" not in document["randomised"] and "generated log" not in text


def test_same_input_same_output(result, log, tmp_path):
    out, *_ = result
    run_with_pages(log, tmp_path)
    for name in ("metrics.json", "report.html", "summary.md"):
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes()


def test_without_random_searches_the_logged_ones_decide(write, tmp_path):
    write(tmp_path / "log", random_share=0.0, requests=800)
    numbers, document = run(tmp_path / "log", tmp_path)
    assert document["randomised"] is None and document["deciding"] == "logged" and "ipw" not in document
    assert not any(name.startswith("randomised") for name in numbers)
    learned = {"model": "model", "examination": [1.0, 0.7, 0.5, 0.4, 0.3, 0.3, 0.25, 0.2]}
    (tmp_path / "log" / "model" / "scores.json").write_text(json.dumps(learned))
    _, document = run(tmp_path / "log", tmp_path)
    assert document["deciding"] == "ipw" and document["examination_learned"] == learned["examination"]


@pytest.mark.parametrize("rivals", [(), ("baseline_cos",), ("champion",), ("baseline", "baseline_cos", "baseline_full")])
def test_any_number_of_rivals(log, result, tmp_path, rivals):
    """The rivals that were scored are judged, as they are beside others; the model's own figures do not depend on them."""
    root = tmp_path / "log"
    root.mkdir()
    for part in log.iterdir():
        (root / part.name).symlink_to(part)
    (root / "baseline_full").symlink_to(log / "baseline_cos")
    (root / "champion").symlink_to(log / "baseline")
    numbers, document = run(root, tmp_path, rivals=rivals)
    _, _, other, _ = result
    lifts = {"baseline": "lift", "baseline_cos": "lift_cos", "baseline_full": "lift_full", "champion": "lift_champion"}
    for name in ("randomised", "logged"):
        assert {key for key in document[name] if key.startswith("lift")} == {lifts[rival] for rival in rivals}
        assert set(document[name]["intervals"]) == {"model", "oracle", *rivals}
        for rival in ("model", "oracle", *rivals):
            same = {"champion": "baseline", "baseline_full": "baseline_cos"}.get(rival, rival)
            assert document[name][rival] == other[name][same]
    assert any("lift" in name for name in numbers) == bool(rivals)
    assert len(document["gate"]["reasons"]) == max(len(rivals), 1)
    if not rivals:
        *_, text = run_with_pages(root, tmp_path, rivals=rivals)
        assert "Kinds of search" not in text and "Where the triple tower wins most" not in text
        assert document["gate"]["word"] == "hold" and "nothing to compare with" in document["gate"]["reasons"][0]
        assert "is not known" in text and "triple tower" in show.results(document)


def test_the_champion_is_the_one_to_beat(log, tmp_path):
    _, document = run(log, tmp_path, scores_champion=log / "baseline")
    assert document["randomised"]["lift_champion"] == document["randomised"]["lift"]
    assert "champion" in document["gate"]["reasons"][0] and len(document["gate"]["reasons"]) == 1
    _, document = run(log, tmp_path, scores_champion=log / "model")
    assert document["gate"]["word"] == "hold"  # a challenger that only equals the champion stays out


def test_rows_of_one_request_may_lie_apart(log, result, tmp_path):
    """The same log with its rows interleaved gives the same ranking metrics."""
    root = tmp_path / "log"
    shutil.copytree(log, root)
    order = np.random.default_rng(0).permutation(pq.read_metadata(root / "features/test/part-0000.parquet").num_rows)
    for file in ("features/test/part-0000.parquet", "model/test.parquet", "baseline/test.parquet", "baseline_cos/test.parquet"):
        pq.write_table(pq.read_table(root / file).take(pa.array(order)), root / file)
    _, document = run(root, tmp_path)
    for ranker in ("model", "baseline", "oracle"):
        for metric, value in document["randomised"][ranker].items():
            assert value == pytest.approx(result[2]["randomised"][ranker][metric], abs=1e-9)


def test_scores_of_other_rows_are_refused_and_nothing_is_written(log, tmp_path):
    root = tmp_path / "log"
    shutil.copytree(log, root)
    file = root / "baseline" / "test.parquet"
    pq.write_table(pq.read_table(file)[:-1], file)
    with pytest.raises(ArtifactError, match="other rows"):
        run(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", [-0.1, 1.5, np.nan, np.inf])
def test_a_score_that_is_no_probability_is_refused(log, tmp_path, wrong):
    root = tmp_path / "log"
    shutil.copytree(log, root)
    file = root / "baseline" / "test.parquet"
    table = pq.read_table(file)
    score = np.append(table["score"].to_numpy()[:-1], wrong)
    pq.write_table(table.set_column(table.schema.get_field_index("score"), "score", pa.array(score, pa.float32())), file)
    with pytest.raises(ArtifactError, match=r"1 of .* scores are no probability"):
        run(root, tmp_path / "out")


def test_the_truth_of_another_log_is_refused(log, tmp_path):
    root = tmp_path / "log"
    shutil.copytree(log, root)
    file = root / "truth" / "part-0000.parquet"
    table = pq.read_table(file)
    pq.write_table(table.set_column(0, "request_id", pa.array([f"other{i}" for i in range(len(table))])), file)
    with pytest.raises(DataError, match="truth"):
        run(root, tmp_path / "out")


def test_roc_points_are_finite_and_copied(result, tmp_path):
    out, *_ = result
    fpr, tpr, thresholds = step.roc(out / "metrics.json", copy=tmp_path / "roc.json")
    assert len(fpr) == len(tpr) == len(thresholds) and np.isfinite([fpr, tpr, thresholds]).all()
    assert json.loads((tmp_path / "roc.json").read_text())["tpr"] == tpr
    assert 30 <= len(fpr) <= 50 and (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(tpr, fpr) == pytest.approx(result[2]["randomised"]["model"]["auc"], abs=1e-3)


def test_the_headline_is_ten_figures_of_the_deciding_slice_and_rival(result):
    out, _, document, _ = result
    figures = step.headline(out / "metrics.json", QUICK)
    decides = min((document["randomised"][key]["map@3"] for key in ("lift", "lift_cos")), key=lambda lift: lift["low"])
    assert list(figures) == [
        *("auc", "calibration_error", "map_at_1", "map_at_3", "map_at_3_lift_pct_vs_xgboost"),
        *("map_at_3_lift_pct_vs_xgboost_high", "map_at_3_lift_pct_vs_xgboost_low", "ndcg_at_10", "test_searches", "warnings"),
    ]
    assert figures["map_at_3"] == document["randomised"]["model"]["map@3"]
    assert figures["map_at_3_lift_pct_vs_xgboost_low"] == 100 * decides["low"]
    assert figures["test_searches"] == document["randomised"]["requests"]


def test_the_verdict_comes_first_and_is_the_same_everywhere(result, log, tmp_path, caplog):
    out, _, document, text = result
    word, reason = step.verdict(out / "metrics.json")
    assert (word, reason) == (document["gate"]["word"], document["gate"]["reasons"][0])
    sentence = f"Hold: keep the current model. {reason}"
    assert re.search(r"<body>\s*<main>\s*<h1 class=\"bad\"><bdi>" + re.escape(sentence), text)
    summary = (out / "summary.md").read_text()
    assert summary.startswith(f"**{sentence}**\n")
    with caplog.at_level("INFO"):
        run(log, tmp_path)
    assert [record.message for record in caplog.records].count(sentence) == 1
    assert show.results(document).startswith(f"Gate: {word}. {reason}\n")
    for shown in (re.sub("<[^>]*>", " ", text), summary):
        assert not re.search(r"map@|map_at|gate is|closed|Gate: open", shown)


def test_the_summary_is_narrow(result):
    lines = (result[0] / "summary.md").read_text().splitlines()
    tables = [line for line in lines if line.startswith("|")]
    assert len(tables) == 4 * (2 + 4) and {line.count("|") - 1 for line in tables} == {5}


def with_user_ids(log, root, name):
    """The same log with user ids `name(number)`, equal ids being one user."""
    shutil.copytree(log, root)
    number = np.unique([name(u) for u in range(400)], return_inverse=True)[1]
    ids = [name(int(np.flatnonzero(number == n)[0])) for n in range(number.max() + 1)]
    file = root / "dataset" / "users.parquet"
    table = pq.read_table(file)[: len(ids)]
    pq.write_table(table.set_column(1, "user_id", pa.array(ids)), file)
    for file in [root / "dataset" / "requests.parquet", *(root / "features").glob("*/*.parquet")]:
        table = pq.read_table(file)
        user = pa.array(number[table["user"].to_numpy()], pa.int32())
        pq.write_table(table.set_column(table.schema.get_field_index("user"), "user", user), file)
    return root


@pytest.mark.parametrize("name", ["guest", "7f3a"])
def test_searches_under_one_id_are_counted_one_by_one(log, tmp_path, result, name):
    """All searches of guests: intervals have a width, and a reader is told."""
    _, document, text = run_with_pages(with_user_ids(log, tmp_path / "log", lambda _: name), tmp_path)
    assert document["shared_users"] == {"users": [name], "searches": 1500, "share": 1.0}
    lift = document["randomised"]["lift"]["auc"]
    assert lift["value"] == pytest.approx(result[2]["randomised"]["lift"]["auc"]["value"])
    assert lift["low"] < lift["value"] < lift["high"]
    for told in (*document["notes"], text, (tmp_path / "summary.md").read_text().replace("\\", "")):
        assert "1,500 searches (100.0%) have no known user" in told


def test_searches_of_guests_among_those_of_known_users(log, tmp_path):
    _, document = run(with_user_ids(log, tmp_path / "log", lambda u: "Anonymous" if u < 100 else f"u{u}"), tmp_path)
    assert document["shared_users"]["users"] == ["Anonymous"] and 0.2 < document["shared_users"]["share"] < 0.3
    assert document["logged"]["users"] > 400


def test_three_users_cannot_be_judged_and_every_output_says_so(log, tmp_path):
    root = with_user_ids(log, tmp_path / "log", lambda u: f"u{u % 3}")
    numbers, document, text = run_with_pages(root, tmp_path)
    reason = "the clicks are those of 3 users, fewer than 20"
    assert document["gate"] == {"word": "hold", "reasons": [f"Nothing can be judged: {reason}."]}
    assert document["randomised"]["cannot_be_judged"] == reason
    assert document["randomised"]["lift"]["auc"]["low"] is None and document["randomised"]["lift"]["auc"]["reason"] == reason
    assert document["randomised"]["model"]["auc"] > 0.6 and document["randomised"]["lift"]["auc"]["value"] > 0
    assert numbers["judged"] == 0 and numbers["randomised_auc"] > 0.6 and not any("lift" in name for name in numbers)
    assert f"Cannot be judged: {reason}" in text and "nan" not in re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL).lower()
    summary = (tmp_path / "summary.md").read_text()
    assert f"Cannot be judged: {reason}" in summary and "It cannot be judged which ranker is better" in summary
    assert "[?]" in show.results(document) and f"Cannot be judged: {reason}." in show.results(document)


def test_honest_logs_are_not_suspected(result):
    assert result[2]["warnings"] == [] and result[2]["notes"] == []
    assert "Too good to be true" not in result[3]


def test_a_rival_that_knows_the_clicks_is_suspected_everywhere(log, tmp_path, caplog):
    root = tmp_path / "log"
    shutil.copytree(log, root)
    clicked = pq.read_table(root / "features" / "test")["clicked"].to_numpy()
    file = root / "baseline" / "test.parquet"
    table = pq.read_table(file)
    told = np.where(np.random.default_rng(0).random(len(table)) < 0.99, clicked, ~clicked) * 0.8 + 0.1
    pq.write_table(table.set_column(2, "score", pa.array(told, pa.float32())), file)
    numbers, document, text = run_with_pages(root, tmp_path)
    wanted = r"Too good to be true: AUC 0\.9\d+ of XGBoost on randomised searches"
    assert re.match(wanted, document["warnings"][0]) and re.search(wanted, text) and re.search(wanted, caplog.text)
    assert re.search(wanted, (tmp_path / "summary.md").read_text().replace("\\", ""))
    assert re.search("WARNING: " + wanted, show.results(document))
    assert len(document["warnings"]) == numbers["warnings"] == 2  # on randomised and on logged searches


def test_a_model_that_knows_the_clicks_does_not_pass(log, tmp_path):
    root = tmp_path / "log"
    shutil.copytree(log, root)
    clicked = pq.read_table(root / "features" / "test")["clicked"].to_numpy()
    file = root / "model" / "test.parquet"
    table = pq.read_table(file)
    pq.write_table(table.set_column(2, "score", pa.array(clicked * 0.5 + 0.2, pa.float32())), file)
    _, document = run(root, tmp_path)
    assert document["gate"]["word"] == "hold" and "too good to be true" in document["gate"]["reasons"][0]
    _, document = run(root, tmp_path, config=EvaluationConfig(suspicious_auc=1))
    assert document["gate"]["word"] == "pass"


def test_better_than_the_truth_is_too_good(log, tmp_path):
    """AUC far from 1, but above that of the true probabilities: a third of the clicks are known."""
    root = tmp_path / "log"
    shutil.copytree(log, root)
    clicked = pq.read_table(root / "features" / "test")["clicked"].to_numpy()
    file = root / "model" / "test.parquet"
    table = pq.read_table(file)
    known = clicked & (np.random.default_rng(0).random(len(table)) < 1 / 3)
    pq.write_table(table.set_column(2, "score", pa.array(np.where(known, 0.99, table["score"]), pa.float32())), file)
    _, document = run(root, tmp_path)
    assert ["than the true probabilities" in warning for warning in document["warnings"]] == [True]


def test_a_column_that_knows_the_clicks_is_named(log, tmp_path):
    root = tmp_path / "log"
    shutil.copytree(log, root)
    file = root / "features" / "test" / "part-0000.parquet"
    table = pq.read_table(file)
    clicked = table["clicked"].to_numpy()
    noise = np.random.default_rng(1).normal(size=len(clicked))
    for name, values in (("honest", noise + clicked), ("leak", 3 - clicked), ("seen", np.where(clicked, noise, np.nan))):
        table = table.append_column(name, pa.array(values, pa.float32(), from_pandas=True))
    pq.write_table(table, file)
    (root / "features" / "features.json").write_text(
        json.dumps({"features": [{"name": n} for n in ("honest", "leak", "seen")]})
    )
    _, document, text = run_with_pages(root, tmp_path)
    assert [re.search(r"column (\w+ \([\w ]+)", warning)[1] for warning in document["warnings"]] == [
        "leak (its value alone has AUC 1",
        "seen (whether it is missing has AUC 1",
    ]
    assert text.count("Too good to be true") == 2
    _, document = run(root, tmp_path, config=EvaluationConfig(suspicious_feature_auc=1))
    assert document["warnings"] == []


def test_a_remark_stands_on_every_output(log, tmp_path):
    remark = "Smoke test: <b>nothing</b> is *judged*."
    _, document, text = run_with_pages(log, tmp_path, config=EvaluationConfig(remark=remark))
    assert document["notes"] == [remark] and "Smoke test: &lt;b&gt;nothing" in text
    assert r"Smoke test: \<b\>nothing\</b\> is \*judged\*" in (tmp_path / "summary.md").read_text()
    assert f"\n\nNote: {remark}\n" in show.results(document)


def test_any_text_of_the_log_is_shown_as_text(log, tmp_path):
    """Titles, queries and places with everything in them: one line each, escaped, cut."""
    root = tmp_path / "log"
    shutil.copytree(log, root)
    nasty = ["$x$ \\ _a^b", "<script>alert(1)</script>", "one\ntwo\x1b[31m", "left\u202eright", "n" * 50_000, "", "👩‍👩‍👧 ممرض"]
    for file, columns in (("jobs", ("title", "company", "city")), ("texts", ("value",)), ("requests", ("city", "region"))):
        path = root / "dataset" / f"{file}.parquet"
        table = pq.read_table(path)
        for name in columns:
            values = pa.array([nasty[i % len(nasty)] for i in range(len(table))])
            table = table.set_column(table.schema.get_field_index(name), name, values)
        pq.write_table(table, path)
    _, document, text = run_with_pages(root, tmp_path)
    assert "<script" not in text and "&lt;script&gt;" in text and "$x$" in text and "one two [31m" in text
    assert "\u202e" not in text and "\x1b" not in text and "n" * 300 not in text
    assert any("alert(1)" in name.lower() for name in document["slices"])


@pytest.mark.parametrize(("requests", "random_share"), [(10, 0.0), (24, 0.5), (24, 1.0)])
def test_a_handful_of_searches_gives_a_result_not_a_crash(write, tmp_path, requests, random_share):
    write(tmp_path / "log", requests=requests, random_share=random_share)
    numbers, document = run(tmp_path / "log", tmp_path)
    assert document["gate"]["word"] == "hold"
    assert all(math.isfinite(value) for value in numbers.values())


def test_no_click_at_all_is_one_clear_error(write, tmp_path):
    write(tmp_path / "log", requests=60)
    file = tmp_path / "log" / "features" / "test" / "part-0000.parquet"
    table = pq.read_table(file)
    index = table.schema.get_field_index("clicked")
    pq.write_table(table.set_column(index, table.schema.field(index), [np.zeros(len(table), bool)]), file)
    with pytest.raises(DataError, match="no held-out search has a click"):
        run(tmp_path / "log", tmp_path / "out")


def test_folders_named_like_columns_change_nothing(log, result, tmp_path):
    odd = tmp_path / "clicked=true" / "request=7" / "[ab]"
    shutil.copytree(log, odd)
    _, metrics = run(odd, tmp_path / "out")
    assert metrics == result[2]
