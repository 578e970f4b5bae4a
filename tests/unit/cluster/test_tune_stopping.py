"""Searches whose launcher is killed, terminated or started again, and those that nobody follows any more."""

import json
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from tritower.cluster import heartbeat
from tritower.config import to_dict
from tritower.tuning.config import TuningConfig

from tests.support import family
from tests.support.apiserver import Cluster, kinds
from tests.unit.cluster.test_stopping import deletes, failed, powerless_pods, running
from tests.unit.cluster.test_tune import CLUSTER, config, experiments, home, search


def start(where: str, given: TuningConfig, **settings: Any) -> "subprocess.Popen[bytes]":
    """A launcher in a process of its own."""
    words = [json.dumps(CLUSTER | settings), where, json.dumps(to_dict(given))]
    return subprocess.Popen([sys.executable, "-m", "tests.support.tune", *words])


def ended(cluster: Cluster) -> bool:
    return not experiments(cluster) and not cluster.store.all(kinds.TRIAL) and not cluster.store.all(kinds.POD)


@pytest.mark.slow
def test_a_launcher_that_was_killed_goes_on_with_its_experiment(cluster: Cluster, s3: str) -> None:
    given = config(fixed={"pause_s": 2})
    first = start(s3, given)
    family.wait_for(lambda: running(cluster), "a running trial")
    first.kill()
    first.wait()
    before = [one["spec"]["parameterAssignments"] for one in cluster.store.all(kinds.TRIAL)]
    seen: set[str] = set()
    watcher = threading.Thread(target=lambda: [_see(cluster, seen) for _ in range(100)])
    watcher.start()
    found = search(s3, given)
    watcher.join()
    assert [one.state for one in found] == ["complete"] * 2 and len(before) == 2
    assert len(seen) == 1  # one Experiment, to its end


def _see(cluster: Cluster, seen: set[str]) -> None:
    seen.update(one["metadata"]["uid"] for one in experiments(cluster))
    time.sleep(0.1)


def test_a_terminated_launcher_deletes_its_experiment(cluster: Cluster, s3: str) -> None:
    launcher = start(s3, config(fixed={"pause_s": 60}))
    family.wait_for(lambda: running(cluster), "a running trial")
    before = len(cluster.faults.seen)
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(300) == -signal.SIGTERM
    assert deletes(cluster, before) == ["experiments"]
    family.wait_for(lambda: ended(cluster), "no experiment, no trial and no pod")


@pytest.mark.slow
def test_a_search_that_nobody_follows_ends_itself(cluster: Cluster, s3: str) -> None:
    launcher = start(s3, config(fixed={"pause_s": 60}, trials=9), abandoned_after_s=2)
    family.wait_for(lambda: running(cluster), "a running trial")
    launcher.kill()
    launcher.wait()
    family.wait_for(lambda: ended(cluster), "no experiment, no trial and no pod")
    assert heartbeat.marked(home(s3))


@pytest.mark.slow
def test_without_the_right_to_delete_it_every_further_trial_fails_at_the_mark(
    cluster: Cluster, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the Experiment ends by itself, with one failure more than it allows."""
    powerless_pods(cluster, monkeypatch)
    given = config(fixed={"pause_s": 60}, trials=20, max_failed=2)
    launcher = start(s3, given, abandoned_after_s=2)
    family.wait_for(lambda: running(cluster), "a running trial")
    launcher.kill()
    launcher.wait()
    family.wait_for(lambda: failed(experiments(cluster)[0]), "a failed experiment")
    assert 3 <= len(cluster.store.all(kinds.TRIAL)) <= 5
    found = search(s3, config(trials=2))  # a new launcher clears the mark and begins anew
    assert [one.state for one in found] == ["complete"] * 2 and not heartbeat.marked(home(s3))
