"""Experiments on a backend: the folders that runs and schedules are in, by name."""

from pipelines.api import Api, Refused

_MOST_CHARACTERS = 255
"""Of names and descriptions of runs, schedules and experiments: their columns in the backend's database."""
_ABOUT = "Runs of tritower: training compares a new ranker with its rivals and says pass or hold, batch ranks jobs every day."


def made(api: Api, name: str) -> str:
    """The experiment of that name; made, with a description, if there is none."""
    found = find(api, name)
    if found:
        return found
    body = {"display_name": name, "description": _ABOUT} | ({"namespace": api.namespace} if api.namespace else {})
    try:
        return str(api.post("experiments", body=body)["experiment_id"])
    except Refused as error:
        found = find(api, name) if error.status == 409 else ""
        if not found:
            raise
        return found


def find(api: Api, name: str) -> str:
    """The id of the experiment of that name; empty where there is none."""
    where = {"namespace": api.namespace} if api.namespace else {}
    listed = api.listed("experiments", key="experiments", equal={"display_name": name}, **where)
    return next((str(one["experiment_id"]) for one in listed if one.get("display_name") == name), "")


def cut(text: str, most: int = _MOST_CHARACTERS) -> str:
    """A name or description of at most so many characters; by default as many as the backend's columns hold."""
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"
