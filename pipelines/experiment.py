"""The pipeline of an online test: what it needs, what it says, and whether one may stop."""

from typing import NamedTuple

from kfp import dsl

from pipelines.wiring import Wiring


class Outputs(NamedTuple):
    """What a run hands back; `claim` is "one may stop", "go on" or "do not trust this test"."""

    report: dsl.HTML
    metrics: dsl.Metrics
    claim: str
    claim_reason: str


def experiment(
    wiring: Wiring,
    data_exposures: str,
    data_guardrails: str = "",
    data_past: str = "",
    data_version: str = "",
    experiment_record: str = "",
) -> Outputs:
    """Read an online test of two rankers, every day if one likes: may one stop, and what may one claim?

    A set of parameters to copy:
    {"data_exposures": "s3://bucket/shown", "data_guardrails": "s3://bucket/events.parquet",
     "data_past": "s3://bucket/impressions", "experiment_record": "s3://bucket/tests/new-ranker",
     "experiment_control": "today", "experiment_treated": "new-ranker", "experiment_days": 42,
     "settings_analyse": {"salt": "new-ranker", "guardrails": [{"name": "unsubscribe", "margin": 0.1}]}}

    Args:
        data_exposures: location of who was shown what in which arm, and clicked: all of it since the start of the test.
        data_guardrails: location of events that must not get worse, such as unsubscribes; empty when there are none.
        data_past: location of impressions from before the test, for CUPED and the plan; empty to take what the exposures have
            from before the start, and to plan by the exposures.
        data_version: changes when the input does; without it a plan whose log changed in place would be taken from the cache.
        experiment_record: root of the test's record (looks.json): what was planned, and which looks were taken. Every run of
            one test has the same; another test has another one. Empty where a test is read once.
    """
    if "simulate" in wiring.parts:
        made = wiring.add("simulate").outputs
        data_exposures, data_guardrails, data_past = (made[f"{name}_at"] for name in ("exposures", "events", "past"))
    if "plan" in wiring.parts:
        wiring.add("plan", log=data_past, exposures=data_exposures, data_version=data_version)
    places = {"exposures": data_exposures, "events": data_guardrails, "past": data_past, "record": experiment_record}
    read = wiring.add("analyse", **places, run=dsl.PIPELINE_JOB_ID_PLACEHOLDER).outputs
    return Outputs(report=read["report"], metrics=read["metrics"], claim=read["claim"], claim_reason=read["claim_reason"])
