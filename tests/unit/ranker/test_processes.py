"""Real torchrun processes: two agree with one, a killed training resumes to the same weights, failures are told."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file
from tritower import schema, storage
from tritower.errors import ArtifactError, NonFiniteLossError
from tritower.metrics.auc import auc
from tritower.ranker import artifact, session, step
from tritower.ranker.config import RankerConfig
from tritower.ranker.process_group import ProcessGroup

from tests.support.ranker_training import SMALL, killed_and_started_again, same, train


def test_two_processes_learn_what_one_learns(log: Any, one: Path, tmp_path: Path):
    """Same global batches: only the order of float32 additions differs."""
    same(one, train(log, tmp_path, replace(SMALL, launch=replace(SMALL.launch, processes=2))))


def test_a_killed_training_resumes_to_the_identical_weights(log: Any, tmp_path: Path):
    config = replace(SMALL, launch=replace(SMALL.launch, checkpoint_every_steps=3, checkpoints=str(tmp_path / "checkpoints")))
    torch.set_num_threads(1)
    session.train(
        features=log.features, embeddings=log.embeddings, model=tmp_path / "straight", work=tmp_path / "work",
        failures="never", config=replace(config, launch=SMALL.launch), group=ProcessGroup(),
    )  # fmt: skip

    killed_and_started_again(log, tmp_path, config, patience_s=250)
    assert (tmp_path / "model/model.safetensors").read_bytes() == (tmp_path / "straight/model.safetensors").read_bytes()
    assert not list((tmp_path / "checkpoints").iterdir())  # a finished training leaves none to resume by mistake


def test_members_score_the_mean_of_networks_trained_alone(log: Any, tmp_path: Path):
    def trained_scores(name: str, config: RankerConfig) -> np.ndarray:
        folder = tmp_path / name
        session.train(
            features=log.features, embeddings=log.embeddings, model=folder / "model", work=folder / "work", failures="never",
            config=config, group=ProcessGroup(),
        )  # fmt: skip
        step.score(features=log.features, embeddings=log.embeddings, model=folder / "model", scores=folder / "scores")
        return pq.read_table(folder / "scores/test.parquet")["score"].to_numpy()

    both, first, second = (
        trained_scores(name, replace(SMALL, training=replace(SMALL.training, epochs=1, members=members, seed=seed)))
        for name, members, seed in (("both", 2, 5), ("first", 1, 5), ("second", 1, 6))
    )
    assert np.abs(first - second).max() > 0.01
    np.testing.assert_allclose(both, (first + second) / 2, atol=1e-6)


def test_a_distilled_network_is_one_and_close_to_its_teachers(log: Any, tmp_path: Path):
    """On the test rows it is closer to the mean of three networks than any of these is."""

    def scores(name: str, **knobs: Any) -> tuple[np.ndarray, Path]:
        folder = tmp_path / name
        session.train(
            features=log.features, embeddings=log.embeddings, model=folder / "model", work=folder / "work", failures="never",
            config=replace(SMALL, training=replace(SMALL.training, epochs=6, patience=99, **knobs)), group=ProcessGroup(),
        )  # fmt: skip
        step.score(features=log.features, embeddings=log.embeddings, model=folder / "model", scores=folder / "scores")
        return pq.read_table(folder / "scores/test.parquet")["score"].to_numpy(), folder / "model"

    mean, _ = scores("mean", members=3, seed=5)
    distilled, model = scores("distilled", members=3, seed=5, distil=True)
    single, _ = scores("single", members=1, seed=8)  # what the distilled one would have been without teachers
    assert storage.read_json(model / "config.json")["training"]["members"] == 1
    assert {name.split(".")[0] for name in load_file(model / "model.safetensors")} == {"0", "normaliser"}
    assert np.abs(distilled - mean).mean() < np.abs(single - mean).mean()


def test_without_positions_there_is_no_position_bias(log: Any, tmp_path: Path):
    for split in ("train", "validation"):
        table = pq.read_table(log.features / split)
        unknown = pa.nulls(table.num_rows, pa.int16())
        table = table.set_column(table.schema.get_field_index("position"), "position", unknown)
        (tmp_path / "features" / split).mkdir(parents=True)
        pq.write_table(table, tmp_path / "features" / split / "part-00000.parquet")
    (tmp_path / "features/features.json").write_bytes((log.features / "features.json").read_bytes())
    session.train(
        features=tmp_path / "features", embeddings=log.embeddings, model=tmp_path / "model", work=tmp_path / "work",
        failures="never", config=replace(SMALL, training=replace(SMALL.training, epochs=1)), group=ProcessGroup(),
    )  # fmt: skip
    loaded = artifact.load(tmp_path / "model")
    assert loaded.config.network.position == "none" and all(member.bias is None for member in loaded.members)


def test_a_loss_that_is_not_finite_stops_with_the_batch(log: Any, tmp_path: Path):
    (tmp_path / "embeddings").mkdir()
    matrix_TD = np.load(log.embeddings / "matrix.npy")
    matrix_TD[70] = np.nan
    np.save(tmp_path / "embeddings/matrix.npy", matrix_TD)
    (tmp_path / "embeddings/encoder.json").write_bytes((log.embeddings / "encoder.json").read_bytes())
    with pytest.raises(NonFiniteLossError, match="document_JD") as caught:
        step.train(
            features=log.features, embeddings=tmp_path / "embeddings", model=tmp_path / "model", scores=tmp_path / "scores",
            config=SMALL,
        )  # fmt: skip
    batch = load_file(caught.value.where)
    assert np.isnan(batch["document_JD"]).any() and len(batch["clicked_B"]) == SMALL.training.batch_size
    assert not (tmp_path / "model").exists() and not (tmp_path / "scores").exists()


@pytest.fixture(scope="session")
def trained(log: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model and scores of the whole step."""
    folder = tmp_path_factory.mktemp("step")
    config = replace(
        SMALL,
        optimiser=replace(SMALL.optimiser, learning_rate=3e-3),
        training=replace(SMALL.training, epochs=12, batch_size=128),
        launch=replace(SMALL.launch, threads=0),
    )
    figures = step.train(
        features=log.features, embeddings=log.embeddings, model=folder / "model", scores=folder / "scores", config=config
    )
    assert figures == storage.read_json(folder / "model/metrics.json")
    return folder


def test_the_step_writes_scores_that_rank(log: Any, trained: Path):
    for split in ("validation", "test"):
        table = pq.read_table(trained / "scores" / f"{split}.parquet")
        assert table.schema == schema.SCORES.arrow()
        keys = pq.read_table(log.features / split, columns=["row", "request"])
        assert table["row"].equals(keys["row"]) and table["request"].equals(keys["request"])
    score_N, relevance_N = table["score"].to_numpy(), log.relevance["test"]
    clicked_N = np.random.default_rng(3).random(len(score_N)) < relevance_N
    best = auc(relevance_N.astype(np.float32), clicked_N)
    assert auc(score_N, clicked_N) > 0.5 + 0.5 * (best - 0.5)
    described = storage.read_json(trained / "scores/scores.json")
    assert described["model"] == "ranker" and described["examination"][0] == 1.0
    assert not (trained / "scores/train.parquet").exists()


def test_scoring_again_gives_the_same_scores(log: Any, trained: Path, tmp_path: Path):
    numbers = step.score(features=log.features, embeddings=log.embeddings, model=trained / "model", scores=tmp_path / "scores")
    assert numbers == {"rows": 9600.0}
    first, again = (pq.read_table(folder / "scores/test.parquet")["score"].to_numpy() for folder in (trained, tmp_path))
    np.testing.assert_allclose(again, first, atol=1e-6)  # texts met in another order change the last bit


def test_another_encoder_or_feature_list_is_refused(log: Any, trained: Path, tmp_path: Path):
    loaded = artifact.load(trained / "model")
    with pytest.raises(ArtifactError, match="encoder zzz"):
        loaded.expect(names=loaded.names, encoder={"hash": "zzz"}, where="here")
    with pytest.raises(ArtifactError, match="the features are not the model's: extra"):
        loaded.expect(names=[*loaded.names, "extra"], encoder=loaded.encoder, where="here")
    with pytest.raises(ArtifactError, match="another order"):
        loaded.expect(names=loaded.names[::-1], encoder=loaded.encoder, where="here")


@pytest.mark.parametrize(
    ("damage", "said"),
    [("truncate", "bytes, .* were written"), ("features", "bytes, .* were written"), ("remove", "a file is missing")],
)
def test_a_damaged_model_folder_is_refused(trained: Path, tmp_path: Path, damage: str, said: str):
    for file in (trained / "model").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    if damage == "truncate":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "features":
        storage.write_json(tmp_path / "features.json", {"features": ["one"]})
    else:
        weights.unlink()
    with pytest.raises(ArtifactError, match=said):
        artifact.load(tmp_path)
    (tmp_path / storage.MARK).unlink()  # as an earlier version wrote it: the parts are held against each other
    with pytest.raises(ArtifactError, match="do not fit"):
        artifact.load(tmp_path)


def test_the_model_card_names_encoder_features_and_figures(trained: Path):
    card = (trained / "model/MODEL_CARD.md").read_text()
    for word in ("abc123", "match, popularity, age", "validation_auc", "learning_rate"):
        assert word in card
