"""The pod of a launched step: the step as KFP starts it, 20 GiB of data behind it in a store, of which it asks for nothing.

The store streams and counts; the worker is a stub. Memory is the peak of the step's own process (VmHWM), disk what its working
and its temporary folder hold at most.
"""

import contextlib
import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tritower import storage
from tritower.encoder.component import embed, finetune
from tritower.ranker.component import ranker
from tritower.tuning.component import tune

from tests.support.apiserver import Cluster, Node, kinds, served
from tests.support.attempts import Step
from tests.support.endless_store import EndlessStore
from tests.support.endless_store import served as serving
from tests.support.s3 import bare  # noqa: F401 - a fixture
from tests.unit.cluster.conftest import INJECTION, ROOT, keys
from tests.unit.cluster.test_launcher import QUICK

GIB = 1 << 30
RUN = "minio://bucket/run"
DATA = {"dataset": 5, "encoder": 1, "embeddings": 4, "features": 10}
"""Artifact -> GiB."""
STEPS = {
    "ranker": (ranker, ("features", "embeddings"), {}),
    "finetune": (finetune, ("dataset",), {}),
    "embed": (embed, ("dataset", "encoder"), {}),
    "tune": (tune, ("features", "embeddings"), {"config": {"trials": 1, "parallel": 1, "prune": False}}),
}


@pytest.fixture
def store(bare: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[EndlessStore]:  # noqa: F811
    one = EndlessStore()
    for name, size in DATA.items():
        one.vast |= {f"run/{name}/part-{number:05}.parquet": GIB // 4 for number in range(4 * size)}
        manifest = {"tritower": 1, "files": {}, "properties": {"data_version": "v1", "rows": 7, "base_model": "mini"}}
        one.objects[f"run/{name}/{storage.MARK}"] = json.dumps(manifest).encode()
    assert sum(one.vast.values()) == 20 * GIB
    with serving(one) as endpoint:
        monkeypatch.setenv("TRITOWER_S3_ENDPOINT", endpoint)
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "step")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        yield one


@pytest.fixture
def stubbed(store: EndlessStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster whose images have the stub for python3."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "python3"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.support.stub_worker "$@"\n')
    program.chmod(0o755)
    paths = {"PYTHONPATH": f"{ROOT / 'components'}:{ROOT}", "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    with served(Cluster(namespaces={"team": {INJECTION: "enabled"}}, nodes=[Node()], environment=paths)) as one:
        one.add(kinds.SECRET, keys("worker"), namespace="team")
        monkeypatch.setenv("KUBECONFIG", str(one.kubeconfig(tmp_path / "kubeconfig", namespace="team")))
        yield one


@contextlib.contextmanager
def measured(folder: Path) -> Iterator[list[int]]:
    """The bytes under a folder, looked at all the time."""
    found, over = [0], threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            with contextlib.suppress(OSError):
                found.append(sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()


@pytest.mark.parametrize("name", STEPS)
def test_a_launched_step_is_small_whatever_is_behind_it(
    name: str, stubbed: Cluster, store: EndlessStore, tmp_path: Path
) -> None:
    component, inputs, more = STEPS[name]
    parameters: dict[str, Any] = {one: f"{RUN}/{one}" for one in inputs} | more
    settings = {"launcher": "pytorchjob", "cluster": QUICK | {"memory": ""}}
    step = Step(component, f"{RUN}/{name}", parameters=parameters | settings)
    with measured(tmp_path / "pod") as held, step.start(tmp_path / "pod") as pod:
        pod.succeeds(300)
    assert "the stub has done its work" in pod.log()
    asked = store.of("step")
    data = [one for one in asked if one.key.startswith(tuple(f"run/{input_}/" for input_ in DATA))]
    assert {one.key for one in data} <= {f"run/{one}/{storage.MARK}" for one in inputs}, "of the data, the manifests alone"
    assert not [one for one in store.asked if one.key in store.vast]
    received = sum(one.size for one in asked)
    print(
        f"{name}: {pod.peak_mib:.0f} MiB of memory, {max(held) / 1024:.0f} KiB of disk, "
        f"{len(asked)} requests to the store, {received:,} bytes from it, {sum(one.size for one in data):,} of them of the data"
    )
    assert received < 1 << 20
    assert pod.peak_mib < 512 and max(held) < GIB
    output = json.loads((tmp_path / "pod" / "executor_output.json").read_text())
    made = {key: value["artifacts"][0]["metadata"] for key, value in output["artifacts"].items()}
    assert all(made[one]["data_version"] == "v1" for one in ("ranker_model", "encoder", "embeddings") if one in made)
    places = {key: value for key, value in output.get("parameterValues", {}).items() if key.endswith("_at")}
    assert all(value == f"{RUN}/{name}/{key.removesuffix('_at')}" for key, value in places.items())
    for place in places.values():  # what the next step reads of it
        kept = json.loads(store.objects[f"{place.removeprefix('minio://bucket/')}/{storage.MARK}"])["properties"]
        assert kept["data_version"] == "v1" and kept["base_model"]
