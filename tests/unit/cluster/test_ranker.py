"""The ranker trained by two pods of a PyTorchJob or a TrainJob: real torchrun agents, between them a store and nothing else."""

import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from kfp.dsl import Dataset, Metrics, Model, TaskConfig
from tritower import storage
from tritower.config import to_dict
from tritower.ranker.component import ranker
from tritower.ranker.config import RankerConfig

from tests.support import family
from tests.support.apiserver import Cluster, kinds
from tests.support.ranker_log import Log, write_log
from tests.support.ranker_training import SMALL, same
from tests.unit.cluster.test_launcher import QUICK, jobs

pytestmark = [pytest.mark.slow]
CLUSTER = QUICK | {"nodes": 2, "memory": "", "start_timeout_s": 120}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    return write_log(tmp_path_factory.mktemp("log"), requests={"train": 800, "validation": 200, "test": 200})


def train(root: str, here: Path, log: Log, config: RankerConfig = SMALL, **more: Any) -> Metrics:
    """The component as KFP calls it; artifacts under `root`, with paths under `here` where they are remote."""
    is_local = root == str(here)
    read = {name: str(getattr(log, name)) if is_local else f"{root}/{name}" for name in ("features", "embeddings")}
    made = {"ranker_model": Model(uri=f"{root}/ranker_model"), "ranker_scores": Dataset(uri=f"{root}/ranker_scores")}
    here.mkdir(exist_ok=True)
    metrics = Metrics(uri=str(here / "metrics"))
    ranker.python_func(**read, **made, ranker_metrics=metrics, config=to_dict(config), **more)
    return metrics


@pytest.mark.parametrize("launcher", ["pytorchjob", "trainjob"])
def test_two_pods_learn_what_one_process_learns(cluster: Cluster, s3: str, log: Log, tmp_path: Path, launcher: str) -> None:
    storage.upload_tree(log.features, f"{s3}/features")
    storage.upload_tree(log.embeddings, f"{s3}/embeddings")
    local = train(str(tmp_path / "local"), tmp_path / "local", log)
    root = s3.replace("s3://", "minio://")
    task = TaskConfig(env=[{"name": "FROM_THE_TASK", "value": "yes"}])
    launched = train(root, tmp_path / "launched", log, launcher=launcher, cluster=CLUSTER, task=task)
    same(tmp_path / "local" / "ranker_model", storage.fetch(f"{root}/ranker_model", tmp_path / "model"))
    assert launched.metadata["validation_auc"] == pytest.approx(local.metadata["validation_auc"], abs=1e-3)
    scores = storage.fetch(f"{root}/ranker_scores", tmp_path / "scores")
    for split in ("validation", "test"):
        here, there = (pq.read_table(folder / f"{split}.parquet") for folder in (tmp_path / "local" / "ranker_scores", scores))
        assert here.column("row").equals(there.column("row"))
        np.testing.assert_allclose(here.column("score"), there.column("score"), atol=5e-3)
    (job,) = jobs(cluster) if launcher == "pytorchjob" else cluster.store.all(kinds.TRAINJOB)
    made = cluster.store.all(kinds.POD)
    assert len(made) == 2 and all(_owner(cluster, pod) == job["metadata"]["uid"] for pod in made)
    assert all("FROM_THE_TASK" in json.dumps(pod["spec"]) for pod in made)
    assert not storage.names(storage.beside(f"{root}/ranker_model"))


def _owner(cluster: Cluster, pod: dict[str, Any]) -> str:
    """The uid of the job, which owns a pod itself or through a JobSet."""
    (owner,) = pod["metadata"]["ownerReferences"]
    above = cluster.store.get(kinds.JOBSET, "team", owner["name"])
    return str((above["metadata"]["ownerReferences"][0] if above else owner)["uid"])


@pytest.mark.parametrize("launcher", ["pytorchjob", "trainjob"])
def test_a_killed_worker_comes_back_and_the_training_goes_on(
    cluster: Cluster, s3: str, log: Log, tmp_path: Path, launcher: str
) -> None:
    storage.upload_tree(log.features, f"{s3}/features")
    storage.upload_tree(log.embeddings, f"{s3}/embeddings")
    config = replace(SMALL, launch=replace(SMALL.launch, checkpoint_every_steps=3))
    killed: list[dict[str, Any]] = []
    again_s: list[float] = []

    def kill() -> None:
        family.wait_for(
            lambda: any("slot-1/state.json" in name for name in storage.names(storage.beside(f"{s3}/ranker_model"))),
            "a checkpoint",
            600,
        )
        (worker,) = (one for one in cluster.store.all(kinds.POD) if "worker-0" in one["metadata"]["name"] or _rank(one) == "1")
        cluster.kill(worker["metadata"]["name"], namespace="team")
        killed.append(worker)
        begun, before = time.monotonic(), {pod["metadata"]["uid"] for pod in cluster.store.all(kinds.POD)}
        family.wait_for(lambda: again(before), "both pods run again", 400)
        again_s.append(time.monotonic() - begun)

    def again(before: set[str]) -> bool:
        statuses = [(pod, pod["status"].get("containerStatuses", [])) for pod in cluster.store.all(kinds.POD)]
        anew = [
            "running" in one["state"] and (one["restartCount"] or pod["metadata"]["uid"] not in before)
            for pod, found in statuses
            for one in found
        ]
        return len(anew) == 2 and all(anew)

    murderer = threading.Thread(target=kill)
    murderer.start()
    train(s3, tmp_path / "launched", log, config=config, launcher=launcher, cluster=CLUSTER)
    murderer.join()
    assert killed and again_s[0] < 300  # 11 to 15 s on a real cluster; the processes' own patience is half an hour
    pods = cluster.store.all(kinds.POD)
    if launcher == "pytorchjob":  # both containers start again in their pods; as a TrainJob both pods are new ones
        assert sum(one["restartCount"] for pod in pods for one in pod["status"]["containerStatuses"]) >= 2
    else:
        assert len(pods) == 2 and {pod["metadata"]["labels"]["jobset.sigs.k8s.io/restart-attempt"] for pod in pods} == {"1"}
    train(str(tmp_path / "local"), tmp_path / "local", log)
    same(tmp_path / "local" / "ranker_model", storage.fetch(f"{s3}/ranker_model", tmp_path / "model"))


def _rank(pod: dict[str, Any]) -> str:
    return str(pod["metadata"]["labels"].get("batch.kubernetes.io/job-completion-index", ""))
