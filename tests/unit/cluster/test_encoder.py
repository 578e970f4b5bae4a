"""Fine-tuning and embedding by PyTorchJobs of two pods, between which there is a store and nothing else; and here, alone."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kfp.dsl import HTML, Dataset, Metrics, Model
from tritower import properties, storage
from tritower.encoder.component import embed, finetune

from tests.support import family
from tests.support.apiserver import Cluster, kinds
from tests.unit.cluster.test_launcher import QUICK, jobs
from tests.unit.encoder.conftest import dataset, tiny_model  # noqa: F401 - fixtures
from tests.unit.encoder.test_embed import write_texts
from tests.unit.encoder.test_finetune import SETTINGS, weights

pytestmark = [pytest.mark.slow]
ELSEWHERE: dict[str, Any] = {
    "launcher": "pytorchjob",
    "cluster": QUICK | {"nodes": 2, "memory": "", "cpu": "1", "start_timeout_s": 240},
}
EMBED = {"precision": "fp32", "backend": "torch", "token_budget": 16, "segment_texts": 8}


@pytest.fixture
def run(s3: str, dataset: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> str:  # noqa: F811
    """A run's folder in the store, with a dataset and a base model."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as the pods have it for their one core
    storage.upload_tree(dataset, f"{s3}/dataset")
    storage.upload_tree(tiny_model, f"{s3}/base")
    return s3


def tuned(run: str, root: str, here: Path, knobs: dict[str, Any], **more: Any) -> tuple[Model, dict[str, Any]]:
    """The component as KFP calls it, its artifacts under `root`; the model and all its figures."""
    here.mkdir(exist_ok=True)
    model, report = Model(uri=f"{root}/encoder"), HTML(uri=f"{root}/report.html")
    out = {"encoder": model, "finetune_report": report, "finetune_metrics": Metrics(uri=str(here / "metrics.json"))}
    (place,) = finetune.python_func(dataset=f"{run}/dataset", **out, config=knobs | {"model": f"{run}/base"}, **more)
    assert place == model.uri and len(out["finetune_metrics"].metadata) == 10
    return model, storage.read_json(here / "metrics.json")


def embedded(dataset_at: str, root: str, knobs: dict[str, Any], encoder: str, **more: Any) -> Dataset:
    made = Dataset(uri=f"{root}/embeddings")
    (place,) = embed.python_func(dataset=dataset_at, embeddings=made, encoder=encoder, config=EMBED | knobs, **more)
    assert place == made.uri
    return made


def kills_a_worker(cluster: Cluster, when: Callable[[], bool]) -> threading.Thread:
    def kill() -> None:
        family.wait_for(when, "something to go on from", 240)
        (worker,) = (pod for pod in cluster.store.all(kinds.POD) if "worker" in pod["metadata"]["name"])
        cluster.kill(worker["metadata"]["name"], namespace="team")

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


def restarts(cluster: Cluster) -> int:
    return sum(one["restartCount"] for pod in cluster.store.all(kinds.POD) for one in pod["status"]["containerStatuses"])


def test_two_pods_tune_as_this_process_does(cluster: Cluster, run: str, tmp_path: Path) -> None:
    """To the tolerances of two processes on one machine: 1e-3 of the loss, 2e-3 of the weights."""
    made, numbers = tuned(run, str(tmp_path / "local"), tmp_path / "local", SETTINGS)
    root = run.replace("s3://", "minio://")
    there, others = tuned(run, root, tmp_path / "launched", SETTINGS, **ELSEWHERE)
    assert others.keys() == numbers.keys() and others["steps"] == numbers["steps"]
    assert others["loss"] == pytest.approx(numbers["loss"], rel=1e-3)
    first, second = weights(tmp_path / "local/encoder"), weights(storage.fetch(there.uri, tmp_path / "model"))
    assert max(np.abs(first[name] - second[name]).max() for name in first) < 2e-3
    assert there.metadata.keys() == made.metadata.keys() and there.metadata["base_model"] == f"{run}/base"
    assert properties.of(there.uri) == properties.of(str(tmp_path / "local/encoder")) == {"base_model": f"{run}/base"}
    page = storage.fetch(f"{root}/report.html", tmp_path / "report.html").read_text()
    assert page.count("<svg") == (tmp_path / "local/report.html").read_text().count("<svg") > 0
    assert jobs(cluster)[0]["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] == 1
    left = {name.split("/")[1] for name in storage.names(run)}
    assert left == {"dataset", "base", "encoder", "report.html"}


def test_a_killed_worker_comes_back_and_tuning_goes_on(cluster: Cluster, run: str, tmp_path: Path) -> None:
    knobs = SETTINGS | {"dropout": 0.1, "checkpoint_steps": 12, "epochs": 8}
    place = storage.beside(f"{run}/encoder")
    thread = kills_a_worker(cluster, lambda: any(name.endswith("/complete.json") for name in storage.names(place)))
    model, numbers = tuned(run, run, tmp_path / "killed", knobs, **ELSEWHERE)
    thread.join()
    assert restarts(cluster) >= 2 and 12 <= numbers["resumed_at"] < numbers["steps"]
    assert not storage.names(place)
    straight, others = tuned(run, f"{run}/straight", tmp_path / "straight", knobs, **ELSEWHERE)
    assert others["resumed_at"] == 0
    first, second = weights(storage.fetch(model.uri, tmp_path / "a")), weights(storage.fetch(straight.uri, tmp_path / "b"))
    assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.fixture
def texts_at(run: str, tmp_path: Path) -> str:
    """A dataset of 768 texts in the store, whose manifest knows something of it."""
    texts = [f"nurse {a}{b} wanted {c}" for a in "abcdefgh" for b in "abcdefgh" for c in "abcdefghijkl"]
    with storage.atomic_directory(tmp_path / "texts") as folder:
        write_texts(folder / "made", texts).joinpath("texts.parquet").rename(folder / "texts.parquet")
        (folder / "made").rmdir()
    storage.upload_tree(tmp_path / "texts", f"{run}/texts")
    storage.leave_notes(f"{run}/texts", {"data_version": "v1", "rows": 9})
    return f"{run}/texts"


def test_two_pods_embed_what_this_process_does_to_the_bit(cluster: Cluster, run: str, texts_at: str, tmp_path: Path) -> None:
    local = embedded(texts_at, str(tmp_path / "local"), {}, f"{run}/base")
    there = embedded(texts_at, run, {}, f"{run}/base", **ELSEWHERE)
    one, both = (np.load(folder / "matrix.npy") for folder in (Path(local.path), storage.fetch(there.uri, tmp_path / "both")))
    assert np.array_equal(one, both)
    assert there.metadata["data_version"] == local.metadata["data_version"] == properties.of(there.uri)["data_version"] == "v1"
    for key in ("hash", "dim", "texts", "new_texts", "name", "code_version"):
        assert there.metadata[key] == local.metadata[key]
    assert not storage.names(storage.beside(there.uri))


def test_a_killed_worker_comes_back_and_what_was_embedded_stays(cluster: Cluster, run: str, texts_at: str) -> None:
    place = storage.beside(f"{run}/embeddings")
    thread = kills_a_worker(cluster, lambda: any(name.endswith(".arrow") for name in storage.names(place)))
    there = embedded(texts_at, run, {}, f"{run}/base", **ELSEWHERE)
    thread.join()
    assert restarts(cluster) >= 2 and 0 < there.metadata["new_texts"] < there.metadata["texts"] == 768
    assert not storage.names(place)
