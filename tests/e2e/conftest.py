"""The cluster and the backend that the environment names; without them every test here is skipped, with the reason.

KUBECONFIG               the cluster, with the right to look at pods and jobs, to drain its nodes and to run a command in a pod
KF_PIPELINES_ENDPOINT    its KFP API
TRITOWER_IMAGE_TAG       tag of tritower/base and tritower/train, of this very code; TRITOWER_IMAGE_PREFIX, as for compiling
TRITOWER_E2E_ROOT        location that pods and this machine open: gets a small log and, from there, what the tests leave
TRITOWER_E2E_NAMESPACE   namespace of the runs; kubeflow when empty
TRITOWER_E2E_TRAINING    id of a run of these tests' training that is there still, to take in place of a new one
TRITOWER_E2E_SPARK       not empty: the image tritower/spark of the same tag is there, too

The namespace has `manifests/base` and the Secret `tritower-store`; the store's address and keys for this machine are in the
environment as for any run (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY).
"""

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tritower import storage
from tritower.simulate.__main__ import main as simulate

from pipelines import compiling, running, steps
from pipelines.api import Api
from tests.e2e import single
from tests.e2e.cluster import Run, There, words
from tests.support import backend

_NAMED = ("KUBECONFIG", "KF_PIPELINES_ENDPOINT", "TRITOWER_IMAGE_TAG", "TRITOWER_E2E_ROOT")
_ROWS = 30_000
SMALL = ("finetune.epochs=1", "finetune.max_clicks=64", "cluster.cpu=200m", "cluster.memory=3Gi")
"""Knobs with which `training` takes some minutes on two cores."""


@pytest.fixture(scope="session")
def there() -> Iterator[There]:
    missing = [name for name in _NAMED if not os.environ.get(name)]
    if missing:
        pytest.skip(f"no cluster to run on: {', '.join(missing)} not set (tests/e2e/conftest.py)")
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not there")
    api, name = Api(), f"e2e-{uuid.uuid4().hex[:8]}"
    root = f"{os.environ['TRITOWER_E2E_ROOT'].rstrip('/')}/{name}"
    yield There(api, os.environ.get("TRITOWER_E2E_NAMESPACE") or "kubeflow", name, root)
    backend.tidy(api, name)


@pytest.fixture(scope="session")
def log(there: There, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Locations of a small log."""
    folder = tmp_path_factory.mktemp("log")
    assert simulate(["--impressions", str(_ROWS), "--seed", "1", "--out", str(folder / "log")]) == 0
    storage.upload_tree(str(folder / "log"), f"{there.root}/log")
    files = {"data_jobs": "jobs.parquet", "data_impressions": "impressions", "data_users": "users.parquet"}
    return {parameter: f"{there.root}/log/{file}" for parameter, file in files.items()}


@pytest.fixture(scope="session")
def trained(there: There, log: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of `training` whose steps are jobs on the cluster, at its end."""
    if known := os.environ.get("TRITOWER_E2E_TRAINING"):
        return Run(there, known)
    folder = tmp_path_factory.mktemp("training")
    file = compiling.compile_one(folder / "training.yaml", "training", steps.parts("training"))
    run = there.submit(file, running.arguments("training", log, "quick", SMALL, launcher="pytorchjob", version=there.name))
    run.ended()
    return run


@pytest.fixture(scope="session")
def rows(trained: Run) -> dict[str, str]:
    """Locations of the features and embeddings that the training made."""
    (job,) = [one for one in trained.jobs() if one["metadata"]["labels"]["tritower.dev/step"] == "ranker"]
    named = words(job)
    return {name: named[name] for name in ("features", "embeddings")}


@pytest.fixture(scope="session")
def ranker(there: There, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled pipeline of one launched ranker."""
    return single.compiled(single.launched_ranker, tmp_path_factory.mktemp("ranker"))
