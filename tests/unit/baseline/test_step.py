"""The whole step on a small log whose relevance is known."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import xgboost as xgb
from sklearn.metrics import roc_auc_score
from tritower import schema
from tritower.baseline import projection, step
from tritower.baseline.config import BaselineConfig
from tritower.errors import DataError, SchemaError

QUICK = {"rounds": 120, "search_trials": 2, "search_rounds": 60, "components": 6, "position_rounds": 2, "threads": 1}


def run(root, out, **knobs):
    numbers = step.run(
        features=root / "features",
        embeddings=root / "embeddings",
        model=out / "model",
        scores=out / "scores",
        config=BaselineConfig(**{**QUICK, **knobs}),
    )
    return numbers, json.loads((out / "model" / "baseline.json").read_text())


@pytest.fixture(scope="module")
def variants(log, tmp_path_factory):
    root, _ = log
    out = tmp_path_factory.mktemp("out")
    return out, {name: run(root, out / name, variant=name) for name in ("standard", "cosines", "full")}


def test_each_variant_sees_more_and_ranks_better(log, variants):
    _, truth = log
    out, results = variants
    seen = {name: description["features"] for name, (_, description) in results.items()}
    assert seen["standard"] == ["plain", "noise"]
    assert seen["cosines"] == ["plain", "noise", "cosine"]
    assert len(seen["full"]) == 3 + 4 * 6
    clicked = truth["test"] > np.median(truth["test"])
    auc = {n: roc_auc_score(clicked, pq.read_table(out / n / "scores" / "test.parquet")["score"]) for n in results}
    assert auc["standard"] + 0.03 < auc["cosines"] < auc["full"] - 0.01


def test_scores_follow_the_contract(log, variants):
    root, _ = log
    out, _ = variants
    written = sorted(p.name for p in (out / "full" / "scores").glob("[!.]*"))
    assert written == ["scores.json", "test.parquet", "validation.parquet"]
    table = pq.read_table(out / "full" / "scores" / "test.parquet")
    assert table.schema.equals(schema.SCORES.arrow())
    keys = pq.read_table(root / "features" / "test")
    assert table["row"].equals(keys["row"]) and table["request"].equals(keys["request"])
    score = table["score"].to_numpy()
    assert score.min() >= 0 and score.max() <= 1


def test_scores_are_probabilities_at_the_top(log, variants):
    """At position 1 examination is certain, so mean score and mean relevance agree, whatever the variant."""
    root, truth = log
    out, _ = variants
    keys = pq.read_table(root / "features" / "test")
    top = keys["position"].to_numpy() == 1
    for name in ("standard", "cosines", "full"):
        score = pq.read_table(out / name / "scores" / "test.parquet")["score"].to_numpy()
        assert abs(score[top].mean() - truth["test"][top].mean()) < 0.04, name


def test_position_offsets_recover_the_examination_order(variants):
    _, results = variants
    offset = np.array(results["full"][1]["position_offset"][:5])
    assert offset[0] == 0
    # With a click rate of about a third, log-odds of examination 1, .6, .4, .3, .25 lie near 0, -.9, -1.4, -1.8, -2.0.
    assert np.all(np.diff(offset) < 0)
    assert -3.0 < offset[4] < -1.2
    assert results["standard"][1]["position_offset"] == []


def test_the_saved_model_gives_the_saved_scores(log, variants):
    root, _ = log
    out, results = variants
    description = results["cosines"][1]
    booster = xgb.Booster(model_file=out / "cosines" / "model" / "model.ubj")
    table = pq.read_table(root / "features" / "test", columns=description["features"])
    matrix = np.column_stack([table[name].to_numpy() for name in description["features"]])
    base = np.full(len(matrix), description["intercept"], np.float32)
    margin = booster.inplace_predict(matrix, base_margin=base, predict_type="margin") + description["top_shift"]
    saved = pq.read_table(out / "cosines" / "scores" / "test.parquet")["score"].to_numpy()
    np.testing.assert_allclose(1 / (1 + np.exp(-margin)), saved, atol=1e-5)


def test_importances_sum_to_one_and_name_what_matters(variants):
    importance = variants[1]["cosines"][1]["importance"]
    assert abs(sum(importance.values()) - 1) < 1e-6
    assert importance["plain"] > importance["noise"] and importance["cosine"] > importance["noise"]


def test_search_keeps_the_best_trial(variants):
    description = variants[1]["standard"][1]
    best = max(description["trials"], key=lambda trial: trial["validation_auc"])
    assert all(best[name] == value for name, value in description["settings"].items())


def test_same_seed_same_scores(log, tmp_path):
    root, _ = log
    tables = []
    for turn in ("a", "b"):
        run(root, tmp_path / turn, search_trials=0, rounds=30)
        tables.append(pq.read_table(tmp_path / turn / "scores" / "test.parquet"))
    assert tables[0].equals(tables[1])


def test_a_log_without_positions_trains_without_offsets(write, tmp_path):
    write(tmp_path / "log", seed=1, positions=False)
    _, description = run(tmp_path / "log", tmp_path / "out", variant="full", rounds=20, search_trials=0)
    assert description["position_offset"] == []


def test_no_clicks_is_one_clear_error_and_no_output(log, tmp_path):
    root, _ = log
    shutil.copytree(root, tmp_path / "log")
    for part in (tmp_path / "log" / "features" / "train").iterdir():
        table = pq.read_table(part)
        index = table.schema.get_field_index("clicked")
        pq.write_table(table.set_column(index, table.schema.field(index), [np.zeros(len(table), bool)]), part)
    with pytest.raises(DataError, match="clicked and not clicked rows are both needed"):
        run(tmp_path / "log", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_feature_column_is_named(log, tmp_path):
    root, _ = log
    shutil.copytree(root, tmp_path / "log")
    for part in (tmp_path / "log" / "features" / "train").iterdir():
        pq.write_table(pq.read_table(part).drop_columns(["noise"]), part)
    with pytest.raises(SchemaError, match="noise"):
        run(tmp_path / "log", tmp_path / "out")


def test_randomised_rows_give_the_offsets_where_there_are_enough(write, tmp_path):
    """The policy knows more than the features, so the log overstates positions; a fifth of random pages does not."""
    write(tmp_path / "log", seed=3, random_share=0.2)
    offsets = {}
    for name, limit in (("randomised", 200), ("alternating", 10**9)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tritower.metrics.examination.MIN_CLICKS", limit)
            _, description = run(tmp_path / "log", tmp_path / name, variant="full", rounds=30, search_trials=0)
        offsets[name] = np.array(description["position_offset"][1:5])
    root = tmp_path / "log" / "features" / "train"
    keys = pq.read_table(root, columns=["randomised", "position", "clicked"]).to_pandas().query("randomised")
    rate = keys.groupby("position").clicked.mean().to_numpy()
    measured = np.log(rate / (1 - rate))[1:] - np.log(rate[0] / (1 - rate[0]))
    assert np.abs(offsets["randomised"] - measured).max() < 0.35
    assert offsets["alternating"].mean() < offsets["randomised"].mean() - 0.2


def test_components_of_descriptions():
    """The first component of vectors on a line is the place on it; a missing description has none."""
    line_TD = np.outer(np.arange(5.0), [0.6, 0.8, 0.0]).astype(np.float32)
    ones, described = np.zeros(4, np.int64), np.array([1, 2, 3, -1])
    maps = projection.fit(line_TD, ones, ones, described, components=2, limit=100, seed=0)
    columns = maps.columns(line_TD, ones, ones, described)
    assert maps.names()[-2:] == ["pca_description_0", "pca_description_1"] and columns.shape == (4, 8)
    np.testing.assert_allclose(np.abs(columns[:3, 6]), [1, 0, 1], atol=1e-6)
    assert np.isnan(columns[3, 6:]).all() and not np.isnan(columns[:3]).any()
    without = projection.fit(line_TD, ones, ones, np.full(4, -1), components=2, limit=100, seed=0)
    assert len(without.names()) == 6 and without.columns(line_TD, ones, ones, np.full(4, -1)).shape == (4, 6)
