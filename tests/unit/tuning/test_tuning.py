"""The search, with a real child process whose best knobs are known."""

import json
import time
from dataclasses import replace

import pytest
from tritower import storage
from tritower.config import from_dict
from tritower.errors import ConfigError, StepError
from tritower.tuning import plots, search, space, step, trial
from tritower.tuning.config import SPACE, Parameter, TuningConfig

from tests.support.ranker_log import write_log

TRAINER = "tests.support.trainer"
RATE = Parameter(name="rate", kind="double", low=1e-4, high=1.0, log=True)
WIDTH = Parameter(name="width", kind="categorical", choices=("64", "128,64"))


def config(**more):
    return TuningConfig(**{"space": (RATE, WIDTH), "trials": 12, **more})


def run(folder, knobs):
    places = {"features": "f", "embeddings": "e", "best": folder / "best.json", "report": folder / "report.html"}
    numbers = step.run(**places, config=knobs, module=TRAINER)
    return numbers, json.loads((folder / "best.json").read_text())


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuning")
    return folder, *run(folder, config(prune=False, fixed={"epochs": 4}))


def test_finds_knobs_near_the_known_best(searched):
    _, numbers, best = searched
    assert best["knobs"]["width"] == "128,64" and best["knobs"]["epochs"] == 4
    assert 1e-3 < float(best["knobs"]["rate"]) < 1e-1  # the best is 1e-2
    assert numbers["best"] > 0.7 > numbers["untuned"]
    assert numbers["trials"] == 12 and numbers["failed"] == 0


def test_the_defaults_are_run_once_and_reported(searched):
    # No knobs but the fixed ones: rate .5, width 64, 4 epochs.
    assert searched[1]["untuned"] == pytest.approx(0.7 - 0.2 * (2 - 0.30103) ** 2 - 0.05 / 4, abs=1e-4)


def test_report_stands_alone_and_shows_every_trial(searched):
    text = (searched[0] / "report.html").read_text()
    assert text.count("<svg") == 2 and "<script" not in text and 'href="http' not in text
    assert text.count('<td class="" data-name="state">') == 12
    assert "Found better settings" in text


def test_goes_on_where_it_was_interrupted(tmp_path):
    kept = str(tmp_path / "study.db")
    _, first = run(tmp_path, config(trials=5, storage=kept, prune=False))
    numbers, second = run(tmp_path, config(trials=8, storage=kept, prune=False))
    assert numbers["trials"] == 8
    assert second["history"][:5] == first["history"]  # nothing is run twice
    rates = [item["params"]["rate"] for item in second["history"]]
    assert len(set(rates)) == 8  # a resumed sampler does not draw the same again


def test_another_space_starts_a_search_of_its_own(tmp_path):
    kept = str(tmp_path / "study.db")
    run(tmp_path, config(trials=3, storage=kept))
    numbers, _ = run(tmp_path, config(trials=2, storage=kept, space=(RATE,)))
    assert numbers["trials"] == 2


def test_a_trial_left_running_by_a_killed_search_is_not_counted(tmp_path):
    from tritower.tuning import search

    kept = tmp_path / "study.db"
    knobs = config(trials=2, storage=str(kept))
    search.open_study(kept, knobs, TRAINER).ask()  # asked for, never told: what a killed process leaves
    numbers, best = run(tmp_path, knobs)
    assert [item["state"] for item in best["history"]].count("complete") == 2
    assert numbers["failed"] == 1


@pytest.mark.slow
def test_hopeless_trials_are_stopped_early(tmp_path):
    # Only `rate` is searched over a wide range, so most trials lie far below the median once some good ones are known.
    knobs = config(
        trials=10,
        space=(RATE,),
        fixed={"epochs": 4, "pause_s": 0.5, "width": "128,64"},
        prune_after_trials=2,
        prune_after_reports=0,
        parallel=2,
    )
    start = time.monotonic()
    numbers, best = run(tmp_path, knobs)
    pruned = [item for item in best["history"] if item["state"] == "pruned"]
    assert numbers["pruned"] == len(pruned) > 0
    assert min(len(item["along"]) for item in pruned) < 4  # at least one was ended before its last validation
    assert time.monotonic() - start < 240


def test_too_many_failures_end_it_with_the_childs_own_words(tmp_path):
    fails = Parameter(name="fail", kind="categorical", choices=("yes", "no"))
    with pytest.raises(StepError, match="cannot open the features"):
        run(tmp_path, config(space=(fails,), max_failed=1, trials=30))
    assert not (tmp_path / "best.json").exists()


def test_nothing_better_keeps_the_defaults(tmp_path):
    bad = Parameter(name="rate", kind="double", low=0.9, high=1.0)
    numbers, best = run(tmp_path, config(space=(bad,), trials=2))
    assert best["knobs"] == {} and numbers["best"] == numbers["untuned"]
    assert "Kept the defaults: no trial beat them" in (tmp_path / "report.html").read_text()


def test_a_figure_that_is_never_finite_is_an_error(tmp_path):
    with pytest.raises(StepError, match="no finite auc"):
        run(tmp_path, config(fixed={"nan": True}))


def test_a_trial_that_hangs_is_ended(tmp_path):
    knobs = config(trial_timeout_s=1.0, fixed={"epochs": 2, "pause_s": 600})
    with pytest.raises(StepError, match="took over 1 s"):
        trial.run(config=knobs, module=TRAINER, knobs=knobs.fixed, inputs={}, folder=tmp_path / "t", behind=lambda *_: False)


def test_metrics_file_is_read_as_katib_reads_it(tmp_path):
    file = tmp_path / "metrics.txt"
    file.write_text("log_loss=0.3\nauc=0.71\nauc=nan\nnote\nauc=0.72\nauc=0.7")  # the last line is still being written
    assert trial.read(file, "auc") == [0.71, 0.72]
    assert trial.read(tmp_path / "none", "auc") == []


def test_katib_gets_text_only():
    got = space.katib(SPACE)
    assert [item["name"] for item in got] == [parameter.name for parameter in SPACE]
    for item in got:
        for value in item["feasibleSpace"].values():
            assert isinstance(value, str) or all(isinstance(choice, str) for choice in value)
    assert got[0] == {
        "name": "learning_rate",
        "parameterType": "double",
        "feasibleSpace": {"min": "0.0003", "max": "0.005", "distribution": "logUniform"},
    }
    whole = space.katib((Parameter(name="epochs", kind="int", low=2, high=8),))
    assert whole[0]["feasibleSpace"] == {"min": "2", "max": "8"}


def test_the_space_comes_through_the_one_door():
    given = {"space": [{"name": "rate", "kind": "double", "low": "1e-4", "high": 1.0, "log": "true"}], "trials": 3.0}
    assert from_dict(TuningConfig, given).space == (RATE,)
    with pytest.raises(ConfigError, match="learning_rate"):
        from_dict(TuningConfig, {"fixed": {"learning_rate": 1e-3}})
    with pytest.raises(ConfigError, match="SQLite needs a disk"):
        TuningConfig(storage="s3://bucket/study.db")
    for bad in (
        {"kind": "double", "low": 2.0, "high": 1.0},
        {"kind": "categorical", "choices": ("a",)},
        {"kind": "int", "low": 0.5, "high": 2},
    ):
        with pytest.raises(ConfigError):
            Parameter(name="x", **bad)


def test_heights_on_the_axes():
    assert plots.height(RATE, "0.01") == pytest.approx(0.5)
    assert plots.height(WIDTH, "128,64") == 1.0


def test_a_trial_trains_one_network(tmp_path):
    """The ranker's default is three, one after the other: two thirds of a search would be theirs."""
    log = write_log(tmp_path, requests={"train": 100, "validation": 50})
    knobs = config(trial_timeout_s=120)
    values = trial.run(
        config=knobs,
        module="tritower.ranker",
        knobs={"epochs": 1, "batch_size": 64},
        inputs={"features": str(log.features), "embeddings": str(log.embeddings)},
        folder=tmp_path / "t",
        behind=lambda *_: False,
    )
    assert len(values) == 2 and all(0 < value < 1 for value in values)
    assert storage.read_json(tmp_path / "t/model/config.json")["training"]["members"] == 1
    for given in ({"members": 2}, {"training.members": 2}, {"training": {"members": 2}}):
        assert trial.one_member(given) == given


def test_a_search_goes_on_from_the_runs_store_on_an_empty_disk(tmp_path, s3):
    """The first trial that fails ends the first attempt; the second one, elsewhere, has the trials before it and that one."""
    places = {"features": "f", "embeddings": "e", "artifact_uri": f"{s3}/best", "module": TRAINER}
    written = {"best": tmp_path / "best.json", "report": tmp_path / "report.html"}
    fail = Parameter(name="fail", kind="categorical", choices=("yes", "no"))
    knobs = config(trials=5, prune=False, max_failed=0, space=(RATE, fail))
    with pytest.raises(StepError):
        step.run(**places, **written, config=knobs)
    assert not written["best"].exists()
    (kept,) = [name for name in storage.names(s3) if name.endswith("/.best.checkpoint/study.db")]
    study = search.open_study(storage.fetch(f"s3://bucket/{kept}", tmp_path / "study.db"), knobs, TRAINER)
    before = search.table(study)
    complete = sum(item["state"] == "complete" for item in before)
    assert [item["state"] for item in before][-1] == "fail" and "untuned" in study.user_attrs

    numbers = step.run(**places, **written, config=replace(knobs, max_failed=100))
    assert storage.read_json(written["best"])["history"][: len(before)] == before
    assert numbers["trials"] == len(before) + 5 - complete
    assert storage.names(s3) == []
