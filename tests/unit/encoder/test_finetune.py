import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import openvino
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer
from tritower import storage
from tritower.encoder import models, step
from tritower.encoder.config import EmbedConfig, FinetuneConfig
from tritower.errors import ArtifactError, DataError, NonFiniteLossError

from tests.support import killed

SETTINGS = {
    "loss": "triplet", "blend": 1.0, "batch_size": 8, "learning_rate": 5e-3, "epochs": 3, "negatives_per_click": 2,
    "precision": "fp32", "evaluation_jobs": 90, "export": False,
}  # fmt: skip


def weights(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "model.safetensors")


def run(dataset: Path, tiny: Path, out: Path, **more: object) -> dict[str, float]:
    config = FinetuneConfig(model=str(tiny), **(SETTINGS | more))
    return step.finetune(
        dataset=dataset, model=out / "model", config=config, report=out / "report.html", metrics=out / "metrics.json"
    )


def command(dataset: Path, tiny: Path, out: Path, processes: int = 1, **more: object) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    config = json.dumps(SETTINGS | {"model": str(tiny)} | more)
    paths = ["--dataset", str(dataset), "--model", str(out / "model"), "--metrics", str(out / "metrics.json")]
    return [sys.executable, *launcher, "-m", "tritower.encoder", "finetune", *paths, "--config", config]


@pytest.fixture(scope="module")
def tuned(dataset: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run with SETTINGS wrote; not to be changed."""
    folder = tmp_path_factory.mktemp("tuned")
    assert run(dataset, tiny_model, folder) == storage.read_json(folder / "metrics.json")
    return folder


def test_learns_the_clicks_and_reports_both_sides(tuned: Path, tiny_model: Path) -> None:
    numbers = storage.read_json(tuned / "metrics.json")
    assert numbers["accepted"] == 1
    assert numbers["after_map_shown"] > numbers["before_map_shown"] + 0.05
    page = (tuned / "report.html").read_text()
    assert "Kept the fine-tuned encoder" in page
    assert page.count("<svg") == 3
    assert not list(tuned.rglob("*.pt*"))
    assert models.content_hash(tuned / "model") != models.content_hash(tiny_model)


def test_exports_the_encoder_for_serving(dataset: Path, tiny_model: Path, tmp_path: Path) -> None:
    run(dataset, tiny_model, tmp_path, export=True)
    folder = tmp_path / "model" / "export"
    info = storage.read_json(folder / "export.json")
    assert info["fidelity"]["fp32"]["cosine_min"] > 0.999999
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode("night nurse, acme").ids
    served = openvino.Core().compile_model(folder / "graph.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(np.array([ids]))[0]
    assert np.allclose(served, models.load(tmp_path / "model").encode(["night nurse, acme"]), atol=1e-5)


def test_keeps_the_old_encoder_when_the_new_one_is_worse(dataset: Path, tuned: Path, tmp_path: Path) -> None:
    ruined = run(dataset, tuned / "model", tmp_path / "bad", learning_rate=1.0, warmup=0.0, margin=2.0)
    assert ruined["accepted"] == 0
    assert "Kept the base encoder" in (tmp_path / "bad" / "report.html").read_text()
    assert models.content_hash(tmp_path / "bad" / "model") == models.content_hash(tuned / "model")


def test_measures_on_randomised_searches_where_there_are_enough(
    make_dataset: Callable[..., Path], tiny_model: Path, tmp_path: Path
) -> None:
    log = make_dataset(tmp_path / "dataset", requests=200, randomised=0.3)
    few = run(log, tiny_model, tmp_path / "few", evaluation_requests=30, epochs=1)
    enough = run(log, tiny_model, tmp_path / "enough", evaluation_requests=10, epochs=1)
    assert (few["measured_on_randomised"], enough["measured_on_randomised"]) == (0, 1)
    assert "in random order" not in (tmp_path / "few" / "report.html").read_text()
    assert "in random order" in (tmp_path / "enough" / "report.html").read_text()


def test_a_blend_lies_between_the_base_and_the_trained_weights(
    dataset: Path, tiny_model: Path, tuned: Path, tmp_path: Path
) -> None:
    assert storage.read_json(tuned / "metrics.json")["accepted"]
    assert run(dataset, tiny_model, tmp_path / "blend", blend=0.9)["accepted"]  # else the base is handed on
    base, whole, blend = (weights(folder) for folder in (tiny_model, tuned / "model", tmp_path / "blend/model"))
    assert all(np.allclose(blend[name], base[name] + 0.9 * (whole[name] - base[name]), atol=1e-6) for name in base)
    assert any(not np.allclose(whole[name], base[name]) for name in base)


def test_no_epochs_hands_the_base_on_unchanged(dataset: Path, tiny_model: Path, tmp_path: Path) -> None:
    run(dataset, tiny_model, tmp_path, epochs=0)
    info = step.embed(
        dataset=dataset, embeddings=tmp_path / "out", config=EmbedConfig(backend="torch"), encoder=tmp_path / "model"
    )
    assert (info["name"], info["hash"]) == (str(tiny_model), models.content_hash(tiny_model))
    assert models.content_hash(tmp_path / "model") == models.content_hash(tiny_model)


@pytest.mark.parametrize("loss", ["ranking", "triplet+ranking"])
@pytest.mark.parametrize("negatives", ["skipped_above", "mined", "shown+mined"])
def test_every_loss_and_source_of_negatives_learns(
    dataset: Path, tiny_model: Path, tmp_path: Path, loss: str, negatives: str
) -> None:
    numbers = run(dataset, tiny_model, tmp_path, loss=loss, negatives=negatives, gradient_checkpointing=loss == "ranking")
    assert numbers["after_map_shown"] > numbers["before_map_shown"]


@pytest.mark.slow
def test_two_processes_reach_the_loss_and_weights_of_one(dataset: Path, tiny_model: Path, tmp_path: Path) -> None:
    numbers = run(dataset, tiny_model, tmp_path / "one", loss="triplet+ranking")
    out = tmp_path / "two"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = command(dataset, tiny_model, out, processes=2, loss="triplet+ranking")
    subprocess.run(done, env=environment, check=True, capture_output=True)
    two = storage.read_json(out / "metrics.json")
    assert numbers["steps"] == two["steps"]
    assert numbers["loss"] == pytest.approx(two["loss"], rel=1e-3)
    # The same global batches; only the order in which float32 gradients are summed differs.
    first, second = weights(tmp_path / "one" / "model"), weights(out / "model")
    assert max(np.abs(first[name] - second[name]).max() for name in first) < 2e-3


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_weights(
    dataset: Path, tiny_model: Path, tmp_path: Path, processes: ForkServerContext
) -> None:
    settings = {"dropout": 0.1, "checkpoint_steps": 12, "epochs": 8, "checkpoints": str(tmp_path / "checkpoints")}
    run(dataset, tiny_model, tmp_path / "whole", **(settings | {"checkpoints": str(tmp_path / "others")}))
    out = tmp_path / "killed"
    words = (tmp_path / "checkpoints", "*/complete.json", run, dataset, tiny_model, out)
    process = processes.Process(target=killed.at, args=words, kwargs=settings)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (out / "model").exists()
    numbers = run(dataset, tiny_model, out, **settings)
    assert 0 < numbers["resumed_at"] < numbers["steps"]
    whole, resumed = weights(tmp_path / "whole" / "model"), weights(out / "model")
    assert all(np.array_equal(whole[name], resumed[name]) for name in whole)
    assert not [path for path in (tmp_path / "checkpoints").rglob("*") if path.suffix in {".pt", ".pth", ".bin"}]


def test_a_checkpoint_of_other_settings_is_not_used(dataset: Path, tiny_model: Path, tmp_path: Path) -> None:
    settings = {"checkpoint_steps": 2, "checkpoints": str(tmp_path / "checkpoints"), "epochs": 1}
    run(dataset, tiny_model, tmp_path / "first", **settings)
    assert run(dataset, tiny_model, tmp_path / "same", **settings)["resumed_at"] > 0
    assert run(dataset, tiny_model, tmp_path / "other", margin=0.3, **settings)["resumed_at"] == 0


def test_a_log_without_clicks_is_one_clear_error(make_dataset: Callable[..., Path], tiny_model: Path, tmp_path: Path) -> None:
    log = make_dataset(tmp_path / "dataset", clicked=False)
    with pytest.raises(DataError, match="no click with a query"):
        run(log, tiny_model, tmp_path)
    assert not (tmp_path / "model").exists()


def test_too_few_clicks_name_the_knob(dataset: Path, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="batch_size"):
        run(dataset, tiny_model, tmp_path, batch_size=4096)


def test_a_loss_that_is_not_finite_stops_and_saves_the_batch(dataset: Path, tiny_model: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.numpy import save_file

    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    tensors = weights(broken)
    tensors["encoder.layer.0.output.dense.bias"][:] = np.nan
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    config = FinetuneConfig(model=str(broken), **SETTINGS)
    from tritower.encoder import finetuning, tables, training

    texts = tables.texts(dataset)
    model = models.load(broken)
    clicks = finetuning.examples(dataset, config, texts, model)
    with pytest.raises(NonFiniteLossError, match="step 0"):
        training.train(model, clicks, texts, config, tmp_path / "checkpoints")
    assert list((tmp_path / "checkpoints").glob("not-finite-*.safetensors"))


def test_a_model_that_is_not_there_or_pickled_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ArtifactError, match="no such model"):
        models.find("nobody/nothing")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ArtifactError, match="safetensors"):
        models.find(str(tmp_path))
