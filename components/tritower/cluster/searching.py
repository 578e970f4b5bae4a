"""Searches on a cluster: an Experiment of Katib, begun or gone on with, followed to its end, and what its trials found.

What was found lies in the run's store before the Experiment is deleted: a step that is started again later takes it from there.
"""

import contextlib
import dataclasses
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tritower import config as knobs
from tritower import storage
from tritower.cluster import heartbeat, katib, names, pod_log
from tritower.cluster.api import Api, Refused
from tritower.cluster.config import ClusterConfig
from tritower.cluster.experiment import Experiments
from tritower.cluster.launcher import ClusterLauncher
from tritower.cluster.state import Seen
from tritower.errors import LaunchError, StorageError
from tritower.jobs import Job
from tritower.searches import Search, Trial, figures
from tritower.storage.staging import sent

logger = logging.getLogger(__name__)
_FOUND = "trials.json"


def open_searcher(settings: Mapping[str, Any] | str | None = None) -> "ClusterSearcher":
    """The searcher with the knobs of `ClusterConfig`."""
    return ClusterSearcher(knobs.from_dict(ClusterConfig, settings, where="cluster"))


class ClusterSearcher:
    """Runs a search as an Experiment of Katib; see `searches.Searcher`.

    Args:
        config: where and how each trial runs.
    """

    def __init__(self, config: ClusterConfig) -> None:
        self.config = config

    def check(self, job: Job, search: Search, place: str) -> None:
        """See `Searcher`: rights, Katib, and what its webhook says of the Experiment."""
        try:
            ClusterLauncher(self.config, Experiments(search)).check(_named(job, place))
        except Refused as error:
            raise _explained(error, search) from error

    def run(self, job: Job, search: Search, place: str) -> list[Trial]:
        """See `Searcher`. An Experiment that ended well is deleted: Katib keeps it, and the pods of its trials, for ever."""
        named, kind = _named(job, place), Experiments(search)
        home, digest = heartbeat.home(named.outputs), _digest(job, search)
        kept = _read(home, digest)
        if kept is not None:
            logger.info("the search has ended before: its %d trials are taken from %s", len(kept), home)
            return kept
        seen = ClusterLauncher(self.config, kind).outcome(named)
        found = [replace(one, along=_figures(home, kind.name_of(seen, one), one, search)) for one in kind.trials(seen)]
        server, own = Api(self.config.api_patience_s), seen.job["metadata"]
        _keep_failed(server, home, kind, seen)
        _write(home, digest, found)
        storage.remove(f"{home}/{katib.FIGURES}")
        try:
            server.delete(kind.resource.path(own["namespace"], own["name"]))
        except LaunchError as error:  # nothing of it runs any more
            logger.warning("the Experiment %s is left in place: %s", own["name"], error)
        return found


def _named(job: Job, place: str) -> Job:
    """The search as a job: what it makes gives it its name and its home."""
    return replace(job, outputs={"search": place})


def _explained(error: Refused, search: Search) -> LaunchError:
    """What Katib's webhook says, with the line that mends it; it has no reasons, only texts."""
    said = error.problem
    if "lacks label" in said:
        space = said.partition('in namespace "')[2].partition('"')[0] or "NAMESPACE"
        problem = f"the namespace {space} lacks the label by which Katib reads what trials report"
        return LaunchError(problem, where=error.where, remedy=f"kubectl label namespace {space} {katib.INJECTION}=enabled")
    if "Suggestion config" in said:
        remedy = "Choose another `algorithm`, or add it: kubectl -n kubeflow edit configmap katib-config"
        return LaunchError(f"Katib has no algorithm {search.algorithm} here", where=error.where, remedy=remedy)
    if "EarlyStopping config" in said:
        return LaunchError(
            "Katib has no early stopping (medianstop) here", where=error.where, remedy="Leave it out: `prune` false."
        )
    return error


def _digest(job: Job, search: Search) -> str:
    return names.spec_hash({"job": dataclasses.asdict(job), "search": dataclasses.asdict(search)})


def _write(home: str, digest: str, found: list[Trial]) -> None:
    whole = {"search": digest, "trials": [dataclasses.asdict(one) for one in found]}
    with sent(f"{home}/{_FOUND}") as file:
        storage.write_json(file, whole)


def _read(home: str, digest: str) -> list[Trial] | None:
    """What this very search found before; None when it has not ended yet."""
    if not storage.names(f"{home}/{_FOUND}"):
        return None
    with tempfile.TemporaryDirectory(prefix="search-") as scratch:
        whole = storage.read_json(storage.fetch(f"{home}/{_FOUND}", Path(scratch) / _FOUND))
    return [Trial(**one) for one in whole["trials"]] if whole["search"] == digest else None


def _figures(home: str, name: str, trial: Trial, search: Search) -> list[float]:
    """What a trial reported along the way; of one whose file is not there, its value."""
    with contextlib.suppress(StorageError), tempfile.TemporaryDirectory(prefix="figures-") as scratch:
        file = storage.fetch(f"{home}/{katib.FIGURES}/{name}", Path(scratch) / name)
        return figures(file.read_text(encoding="utf-8"), search.metric)
    return [] if trial.value is None else [trial.value]


def _keep_failed(server: Api, home: str, kind: Experiments, seen: Seen) -> None:
    """The logs of the trials that failed: they go with the Experiment."""
    failed = {kind.name_of(seen, one) for one in kind.trials(seen) if one.state == "fail"}
    with tempfile.TemporaryDirectory(prefix="failed-") as scratch:
        for pod in seen.pods:
            if kind.trial_of(pod) in failed:
                text = pod_log.whole(server, pod["metadata"]["namespace"], pod)
                (Path(scratch) / f"{pod['metadata']['name']}.log").write_bytes(text)
        if failed:
            storage.tried(lambda: storage.upload_tree(scratch, f"{home}/failed-trials"), "the log of failed trials")
            logger.info("the logs of %d failed trial(s) are in %s/failed-trials", len(failed), home)
