"""KFP interface of an online test: simulate one, plan one, read one."""

from typing import Any, NamedTuple

from kfp.dsl import HTML, Dataset, Metrics, Output

from tritower._build import component


@component("base")
def simulate_test(test: Output[Dataset], config: dict[str, Any] = {}) -> NamedTuple(  # type: ignore[valid-type]
    "Simulated", exposures_at=str, past_at=str, events_at=str
):
    """Writes the tables of a test that never was, to try the others on; the parameters say where they are.

    Args:
        test: Exposures, impressions from before the test, and events (latencies, unsubscribes).
        config: Knobs of SimulateConfig.
    """
    from tritower import storage
    from tritower.config import from_dict
    from tritower.experiment import step
    from tritower.experiment.config import SimulateConfig

    test.metadata.update(step.simulate(out=test.path, config=from_dict(SimulateConfig, config, where="settings_simulate")))
    at = storage.located(test.uri)
    return (f"{at}/shown.parquet", f"{at}/past.parquet", f"{at}/events.parquet")


@component("base")
def plan_test(
    plan_report: Output[HTML],
    plan_metrics: Output[Metrics],
    log: str = "",
    exposures: str = "",
    data_version: str = "",
    experiment_effect: float = 0.05,
    config: dict[str, Any] = {},
) -> None:
    """Says how many users, days and mailings a test needs, from what users did in a log.

    Args:
        plan_report: What is needed, and what could be found after each day.
        plan_metrics: Users, days and mailings, with CUPED and without; the file itself is JSON and has the days, too.
        log: Location of impressions, Parquet or CSV: time, user, click; of the same kind of days as the test is to have.
        exposures: Location of a test's exposures, which are taken where there is no log.
        data_version: Any text that changes when the data behind the same location does, so that the cache sees it.
        experiment_effect: Relative uplift to find.
        config: Knobs of PlanConfig; they win where they name `effect`.
    """
    from tritower.config import from_dict
    from tritower.experiment import step
    from tritower.experiment.config import PlanConfig

    knobs = from_dict(PlanConfig, config, where="settings_plan", plain={"effect": experiment_effect})
    found = step.plan(log=log or exposures, config=knobs, report=plan_report.path, figures=plan_metrics.path)
    for name, value in step.numbers(found).items():
        plan_metrics.log_metric(name, value)


@component("base")
def analyse_test(
    exposures: str,
    report: Output[HTML],
    metrics: Output[Metrics],
    events: str = "",
    past: str = "",
    record: str = "",
    run: str = "",
    experiment_control: str = "control",
    experiment_treated: str = "treated",
    experiment_days: int = 42,
    experiment_look_days: int = 7,
    config: dict[str, Any] = {},
) -> NamedTuple("Verdict", claim=str, claim_reason=str):  # type: ignore[valid-type]
    """Reads a test; the parameter `claim` is "one may stop", "go on" or "do not trust this test", `claim_reason` the sentence.

    Args:
        exposures: Location of who was shown what, Parquet or CSV: time, unit, arm, click.
        report: The verdict, how it went day by day, and what speaks against it.
        metrics: Eight figures with their units; the file itself is JSON and has everything that the report shows.
        events: Location of events for the guardrails: unit, time, name, value.
        past: Location of impressions from before the test, for CUPED.
        record: Root of the test's record (looks.json), which says what was planned and which looks were taken; each run goes on
            from it. Empty where none is kept.
        run: Id of the run, for the record.
        experiment_control: Name of the arm that the other is compared with.
        experiment_treated: Name of the arm in question.
        experiment_days: Length that was planned, in days; fixed from the first look on.
        experiment_look_days: Days between two looks; fixed from the first look on.
        config: Knobs of AnalysisConfig; they win where they name one of those.
    """
    from tritower.config import from_dict
    from tritower.experiment import step
    from tritower.experiment.config import AnalysisConfig

    plain: dict[str, Any] = {"control": experiment_control, "treated": experiment_treated}
    plain |= {"planned_days": experiment_days, "look_days": experiment_look_days}
    knobs = from_dict(AnalysisConfig, config, where="settings_analyse", plain=plain)
    places = {"shown": exposures, "events": events, "past": past, "report": report.path, "figures": metrics.path}
    found = step.analyse(**places, config=knobs, root=record, run=run)
    for name, value in step.numbers(found).items():
        metrics.log_metric(name, value)
    return (found["claim"], found["sentence"])
