"""Former names of the pipelines' parameters and of the steps' outputs, and what they are called now.

The one table of them: errors about an old name take the new one from here, and `python -m pipelines.names` prints it for the
reader (the section "Former names" of README.md).
"""

from collections.abc import Iterator

PARAMETERS = {
    "training": {
        "jobs": "data_jobs",
        "impressions": "data_impressions",
        "users": "data_users",
        "truth": "data_truth",
        "previous_state": "data_state",
        "champion_model": "model_ranker",
        "champion_encoder": "model_encoder",
    },
    "batch": {
        "jobs": "data_jobs",
        "impressions": "data_impressions",
        "users": "data_users",
        "previous_state": "data_state",
        "model": "model_ranker",
        "encoder": "model_encoder",
    },
}
"""Pipeline -> former parameter -> parameter. What was `<table>_config` is `settings_<table>` besides."""

RESULTS = {"training": {"model": "ranker_model"}}
"""Pipeline -> former output -> output."""

OUTPUTS = {
    "ingest": {"quality": "ingest_report", "metrics": "ingest_metrics"},
    "entities": {"metrics": "properties of entities"},
    "finetune": {"model": "encoder", "report": "finetune_report", "metrics": "finetune_metrics"},
    "features": {"metrics": "properties of features"},
    "tune": {"Output": "ranker_settings", "best": "tune_trials", "report": "tune_report", "metrics": "tune_metrics"},
    "ranker": {"model": "ranker_model", "scores": "ranker_scores", "metrics": "ranker_metrics"},
    "baseline": {"model": "baseline_model", "scores": "baseline_scores", "metrics": "properties of baseline_model"},
    "evaluation": {"Output": "gate"},
}
"""Component -> former output -> output."""

_SETTINGS = "settings_"
_FORMER_SETTINGS = "_config"


def settings(table: str) -> str:
    """The parameter that holds the knobs of a table; all of them sort after the other parameters."""
    return _SETTINGS + table


def table(name: str) -> str:
    """The table of knobs that a name stands for which is that of its parameter, now or formerly; else the name itself."""
    return name.removeprefix(_SETTINGS).removesuffix(_FORMER_SETTINGS)


def parameter(pipeline: str, name: str) -> str:
    """What a former parameter of a pipeline is called now; empty where it never was one."""
    found = PARAMETERS.get(pipeline, {}).get(name, "")
    return found or (settings(table(name)) if name.endswith(_FORMER_SETTINGS) else "")


def page() -> Iterator[str]:
    """The table in Markdown, line by line."""
    yield from ("| of | was | is |", "|---|---|---|")
    for kind, renamed in (("parameter of", PARAMETERS), ("output of", RESULTS), ("output of the step", OUTPUTS)):
        for owner, names in renamed.items():
            for old, new in names.items():
                yield f"| {kind} `{owner}` | `{old}` | {new if ' ' in new else f'`{new}`'} |"
    yield f"| parameter of both | `<table>{_FORMER_SETTINGS}` | `{settings('<table>')}` |"


if __name__ == "__main__":
    print(*page(), sep="\n")
