"""What tests leave on a real KFP backend, and find there."""

from collections.abc import Mapping
from typing import Any

from pipelines import experiments
from pipelines.api import Api


def runs_of(api: Api, experiment: str, schedule_id: str) -> list[Mapping[str, Any]]:
    """The runs that a schedule has started, in the order of the API."""
    equal, found = {"recurring_run_id": schedule_id}, experiments.find(api, experiment)
    return list(api.listed("runs", key="runs", equal=equal, experiment_id=found))


def tidy(api: Api, name: str) -> None:
    """Delete the schedules of an experiment of this name, and the pipelines whose names begin with it."""
    experiment = experiments.find(api, name)
    for one in list(api.listed("recurringruns", key="recurringRuns", experiment_id=experiment)) if experiment else []:
        api.delete("recurringruns", one["recurring_run_id"])
    for one in list(api.listed("pipelines", key="pipelines", sort_by="created_at desc", page_size="50")):
        if one["name"].startswith(name):
            api.delete("pipelines", one["pipeline_id"], cascade="true")
