"""The gate opens on a sure lift only."""

import re
from dataclasses import replace

import numpy as np
import pytest
from tritower.evaluation import gate, wording
from tritower.evaluation.config import EvaluationConfig
from tritower.evaluation.estimate import RANKING, Estimate


def known(**rankers):
    """An estimate of 101 users: ranker -> (value, half width of its interval) for every metric, or a dict by metric."""
    ladder = np.linspace(-1, 1, 101)
    ladder /= np.sqrt(np.square(ladder).sum() * (1 - 1 / 101)) * 1.984
    value, without = {}, {}
    for name, given in rankers.items():
        by_metric = given if isinstance(given, dict) else dict.fromkeys(RANKING, given)
        value[name] = {metric: centre for metric, (centre, _) in by_metric.items()}
        without[name] = {metric: centre + half * ladder for metric, (centre, half) in by_metric.items()}
    share = np.full(101, 1 / 101)
    return Estimate(rows=900, requests=300, clicks=300, users=101, value=value, without_U=without, share_U=share)


@pytest.mark.parametrize(
    ("model", "word"), [((0.60, 0.01), "pass"), ((0.51, 0.05), "hold"), ((0.40, 0.01), "hold")]
)  # better for sure, perhaps better, worse
def test_by_the_low_end(model, word):
    assert gate.decide(known(model=model, baseline=(0.50, 0.0)), wording.NAMES, EvaluationConfig()).verdict() == word


def test_every_baseline_must_be_beaten_when_there_is_no_champion():
    value = known(model=(0.60, 0.01), baseline=(0.50, 0.0), baseline_cos=(0.62, 0.0))
    assert gate.decide(value, wording.NAMES, EvaluationConfig()).verdict() == "hold"


def test_with_a_champion_only_the_champion_counts():
    value = known(model=(0.60, 0.01), baseline_cos=(0.62, 0.0), champion=(0.55, 0.0))
    assert gate.decide(value, wording.NAMES, EvaluationConfig()).verdict() == "pass"


def test_a_sure_loss_on_another_metric_closes_it():
    model = dict.fromkeys(RANKING, (0.60, 0.01)) | {"auc": (0.45, 0.01)}
    decision = gate.decide(known(model=model, baseline=(0.50, 0.0)), wording.NAMES, EvaluationConfig())
    assert decision.verdict() == "hold" and any(
        "AUC is surely lower than that of XGBoost" in reason for reason in decision.reasons
    )


@pytest.mark.parametrize(
    ("rankers", "knobs", "sentence"),
    [
        (
            {"model": (0.51, 0.05), "baseline": (0.50, 0.0)},
            {},
            r"Hold: keep the current model\. mAP@3 \+2\.0 % over XGBoost is not sure \(-\d+\.\d to \+\d+\.\d\)",
        ),
        (
            {"model": (0.60, 0.01), "baseline": (0.50, 0.0), "baseline_full": (0.55, 0.0)},
            {},
            r"Pass: put the new model in use\. mAP@3 \+9\.1 % over XGBoost with everything is sure \(\+7\.\d to \+10\.\d\)",
        ),
        (
            {"model": (0.60, 0.01), "champion": (0.62, 0.0)},
            {},
            r"Hold: keep the current model\. mAP@3 is surely lower than that of the champion: -3\.2 % \(-4\.\d to -1\.\d\)",
        ),
        (
            {"model": (0.52, 0.005), "baseline": (0.50, 0.0)},
            {"gate_min_lift": 0.04},
            r"Hold: .* mAP@3 \+4\.0 % over XGBoost is not surely above the \+4\.0 % that is asked for \(.*\)",
        ),
        (
            {"model": (0.96, 0.01), "baseline": (0.50, 0.0)},
            {},
            r"Hold: keep the current model\. The model's AUC of 0\.9600 is too good to be true",
        ),
        ({"model": (0.60, 0.01)}, {}, r"Hold: .* nothing to compare with: no rival and no champion was scored"),
        (
            {"model": (0.60, 0.01), "baseline": (0.50, 0.0)},
            {"gate_metric": "auc"},
            r"Pass: .* AUC \+20\.0 % over XGBoost is sure .*",
        ),
    ],
)
def test_the_sentence_that_a_reader_sees(rankers, knobs, sentence):
    decision = gate.decide(known(**rankers), wording.NAMES, EvaluationConfig(**knobs))
    assert re.fullmatch(sentence + r"\.", decision.sentence()), decision.sentence()


def test_too_few_users_is_a_sentence_of_its_own():
    value = replace(known(model=(0.60, 0.01), baseline=(0.5, 0.0)), reason="the clicks are those of 3 users, fewer than 20")
    sentence = gate.decide(value, wording.NAMES, EvaluationConfig()).sentence()
    assert sentence == ("Hold: keep the current model. Nothing can be judged: the clicks are those of 3 users, fewer than 20.")


def test_a_wanted_margin():
    value = known(model=(0.52, 0.005), baseline=(0.50, 0.0))
    assert gate.decide(value, wording.NAMES, EvaluationConfig(gate_min_lift=0.02)).verdict() == "pass"
    assert gate.decide(value, wording.NAMES, EvaluationConfig(gate_min_lift=0.04)).verdict() == "hold"
