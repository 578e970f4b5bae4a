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

QUICK = EvaluationConfig()


def run(root, out, *, truth=True, config=QUICK, **more):
    numbers = step.run(
        dataset=root / "dataset",
        features=root / "features",
        scores=root / "model",
        scores_baseline=root / "baseline",
        scores_baseline_cos=root / "baseline_cos",
        truth=str(root / "truth") if truth else "",
        metrics=out / "metrics.json",
        report=out / "report.html",
        summary=out / "summary.md",
        config=config,
        **more,
    )
    return numbers, json.loads((out / "metrics.json").read_text()), (out / "report.html").read_text()


@pytest.fixture(scope="module")
def result(log, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluation")
    return out, *run(log, out)


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
    wins = text[text.index("Where the triple tower wins most") : text.index("Where it loses most")]
    assert wins.count("<details") == 8
    assert "query " in wins and "Title " in wins and 'class="clicked"' in wins


def test_equal_rankers_leave_the_error_browser_empty(log, tmp_path):
    root = tmp_path / "log"
    root.mkdir()
    for part in log.iterdir():
        (root / part.name).symlink_to(log / ("model" if part.name.startswith("baseline") else part.name))
    _, document, text = run(root, tmp_path)
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
    _, document, text = run(log, tmp_path, truth=False)
    assert "oracle" not in document["randomised"] and "generated log" not in text


def test_same_input_same_output(result, log, tmp_path):
    out, *_ = result
    run(log, tmp_path)
    for name in ("metrics.json", "report.html", "summary.md"):
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes()


def test_without_random_searches_the_logged_ones_decide(write, tmp_path):
    write(tmp_path / "log", random_share=0.0, requests=800)
    numbers, document, _ = run(tmp_path / "log", tmp_path)
    assert document["randomised"] is None and document["deciding"] == "logged" and "ipw" not in document
    assert not any(name.startswith("randomised") for name in numbers)
    learned = {"model": "model", "examination": [1.0, 0.7, 0.5, 0.4, 0.3, 0.3, 0.25, 0.2]}
    (tmp_path / "log" / "model" / "scores.json").write_text(json.dumps(learned))
    _, document, _ = run(tmp_path / "log", tmp_path)
    assert document["deciding"] == "ipw" and document["examination_learned"] == learned["examination"]


def test_the_champion_is_the_one_to_beat(log, tmp_path):
    _, document, _ = run(log, tmp_path, scores_champion=f"file://{log}/baseline")
    assert document["randomised"]["lift_champion"] == document["randomised"]["lift"]
    assert "champion" in document["gate"]["reasons"][0] and len(document["gate"]["reasons"]) == 1
    _, document, _ = run(log, tmp_path, scores_champion=log / "model")
    assert document["gate"]["word"] == "hold"  # a challenger that only equals the champion stays out


def test_rows_of_one_request_may_lie_apart(log, result, tmp_path):
    """The same log with its rows interleaved gives the same ranking metrics."""
    root = tmp_path / "log"
    shutil.copytree(log, root)
    order = np.random.default_rng(0).permutation(pq.read_metadata(root / "features/test/part-0000.parquet").num_rows)
    for file in ("features/test/part-0000.parquet", "model/test.parquet", "baseline/test.parquet", "baseline_cos/test.parquet"):
        pq.write_table(pq.read_table(root / file).take(pa.array(order)), root / file)
    _, document, _ = run(root, tmp_path)
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


@pytest.mark.parametrize(("requests", "random_share"), [(10, 0.0), (24, 0.5), (24, 1.0)])
def test_a_handful_of_searches_gives_a_result_not_a_crash(write, tmp_path, requests, random_share):
    write(tmp_path / "log", requests=requests, random_share=random_share)
    numbers, document, _ = run(tmp_path / "log", tmp_path)
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
    _, metrics, _ = run(odd, tmp_path / "out")
    assert metrics == result[2]
