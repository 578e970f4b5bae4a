"""Artifacts that were damaged after they were written, and values that are not finite: refused by name, never scored with."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file
from tritower import schema, storage
from tritower.encoder.component import embed
from tritower.errors import ArtifactError, StorageError, TritowerError
from tritower.ranker.component import ranker, score

KNOBS = {
    "query_tower": [8],
    "document_tower": [8],
    "interaction_tower": [8],
    "head": [8],
    "epochs": 1,
    "threads": 1,
    "members": 1,
}
Artifacts = dict[str, SimpleNamespace]


def at(place: Path) -> SimpleNamespace:
    """An artifact as a component takes it."""
    return SimpleNamespace(path=str(place), uri=str(place), metadata={}, log_metric=lambda *_: None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features and embeddings as their steps write them, with a manifest, and a model trained on them."""
    place, random, n = tmp_path_factory.mktemp("trained"), np.random.default_rng(0), 64
    with storage.atomic_directory(place / "embeddings") as folder:
        np.save(folder / "matrix.npy", random.normal(size=(30, 8)).astype(np.float16))
        storage.write_json(folder / "encoder.json", {"name": "tiny", "hash": "h", "dim": 8})
    with storage.atomic_directory(place / "features") as folder:
        storage.write_json(folder / "features.json", {"version": 1, "features": [{"name": "a"}]})
        for number, split in enumerate(schema.SPLITS):
            keys = {
                "row": np.arange(n) + n * number, "request": np.repeat(np.arange(n // 4), 4), "ts": np.arange(n),
                "user": np.zeros(n), "job": np.zeros(n), "query_text": random.integers(0, 15, n),
                "document_text": random.integers(15, 30, n), "position": np.tile([1, 2, 3, 4], n // 4),
                "clicked": random.random(n) < 0.3, "randomised": np.zeros(n, bool),
            }  # fmt: skip
            columns = {c.name: pa.array(keys[c.name]).cast(schema.arrow_type(c.type)) for c in schema.FEATURE_KEYS.columns}
            (folder / split).mkdir()
            table = pa.table(columns | {"a": pa.array(random.normal(size=n), pa.float32())})
            pq.write_table(table, folder / split / "part-00000.parquet")
    inputs = {name: str(place / name) for name in ("features", "embeddings")}
    outputs = {"ranker_model": at(place / "model"), "ranker_scores": at(place / "s"), "ranker_metrics": at(place / "x")}
    ranker.python_func(**inputs, **outputs, config=KNOBS)
    return place


@pytest.fixture
def artifacts(trained: Path, tmp_path: Path) -> Artifacts:
    """Copies to be damaged."""
    for name in ("features", "embeddings", "model"):
        shutil.copytree(trained / name, tmp_path / name)
    return {name: at(tmp_path / name) for name in ("features", "embeddings", "model", "scores")}


def flip(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.seek(-5, os.SEEK_END)
        byte = stream.read(1)
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte[0] ^ 1]))


def all_nan(file: Path) -> None:
    np.save(file, np.full_like(np.load(file), np.nan))


@pytest.mark.parametrize(
    ("name", "harm", "problem"),
    [
        ("model/model.safetensors", flip, "bytes are not those that were written"),
        ("model/model.safetensors", lambda file: os.truncate(file, 0), "has 0 bytes"),
        ("model/config.json", Path.unlink, "missing"),
        ("model/notes.txt", Path.touch, "none of the folder's own"),
        ("embeddings/matrix.npy", all_nan, "bytes are not those that were written"),
        ("embeddings/matrix.npy", lambda file: os.truncate(file, 300), "has 300 bytes"),
        ("features/test/part-00000.parquet", flip, "bytes are not those that were written"),
        ("features/test/part-00001.parquet", Path.touch, "none of the folder's own"),
    ],
)
def test_what_was_damaged_is_named(name: str, harm: Callable[[Path], None], problem: str, artifacts: Artifacts, tmp_path: Path):
    harm(tmp_path / name)
    with pytest.raises(ArtifactError, match=rf"{problem}.* \(in {tmp_path / name}\)\. (Restore|Remove)"):
        score.python_func(**artifacts)
    assert not (tmp_path / "scores").exists()


def test_values_that_are_not_finite_stop_the_step_where_no_manifest_does(artifacts: Artifacts, tmp_path: Path) -> None:
    """As in folders of an earlier version, whose mark is empty."""
    for name in ("embeddings", "model"):
        (tmp_path / name / storage.MARK).write_text("")
    score.python_func(**artifacts)
    shutil.rmtree(tmp_path / "scores")
    matrix = tmp_path / "embeddings" / "matrix.npy"
    whole = np.load(matrix)
    all_nan(matrix)
    with pytest.raises(
        ArtifactError, match=rf"64 of 64 scores are not finite, first that of row 0 of train \(in {tmp_path}/model\)"
    ):
        score.python_func(**artifacts)
    np.save(matrix, whole)
    weights = tmp_path / "model" / "model.safetensors"
    tensors = load_file(weights)
    name = next(name for name in tensors if name.startswith("0.relevance") and name.endswith("weight"))
    tensors[name][0] = np.inf
    save_file(tensors, weights)
    with pytest.raises(ArtifactError, match=rf"the weights '{name[2:]}' of network 1 are not finite \(in {weights}\)"):
        score.python_func(**artifacts)
    assert not (tmp_path / "scores").exists()


def test_every_file_of_an_artifact_may_be_read_by_whom_the_umask_says(trained: Path) -> None:
    before = os.umask(0)
    os.umask(before)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (trained / "model").iterdir()}
    assert "model.safetensors" in modes and set(modes.values()) == {0o666 & ~before}


def test_a_reader_without_permission_is_not_told_to_train(artifacts: Artifacts) -> None:
    # The first time with the right, so that nothing is imported when it is given up.
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom tritower import errors\nfrom tritower.ranker import artifact\n"
        "folder = Path(sys.argv[1])\nartifact.load(folder)\n(folder / 'model.safetensors').chmod(0)\n"
        "if os.getuid() == 0:\n    os.setuid(65534)\n"
        "try:\n    artifact.load(folder)\nexcept errors.StorageError as error:\n    print(error)\n"
    )
    for mark in (None, ""):  # with a manifest, and as an earlier version left it
        # Another user's way into pytest's own folders is closed.
        with tempfile.TemporaryDirectory() as place:
            Path(place).chmod(0o755)
            shutil.copytree(artifacts["model"].path, f"{place}/model")
            if mark is not None:
                (Path(place) / "model" / storage.MARK).write_text(mark)
            done = subprocess.run([sys.executable, "-c", code, f"{place}/model"], capture_output=True, text=True, check=False)
            assert f"this user may not read it (in {place}/model/model.safetensors). Ask its owner" in done.stdout, done.stderr


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    with storage.atomic_directory(tmp_path / "dataset") as folder:
        pq.write_table(
            pa.table({"value": ["nurse", "java developer", "driver"] + [f"cook {n}" for n in range(40)]}),
            folder / "texts.parquet",
        )
    return tmp_path / "dataset"


def test_embed_refuses_a_damaged_dataset_and_an_output_that_another_process_writes(dataset: Path, tmp_path: Path) -> None:
    with (
        storage.exclusive(tmp_path / ".embeddings.checkpoint", "test"),
        pytest.raises(StorageError, match="another process is at work"),
    ):
        embed.python_func(dataset=str(dataset), embeddings=at(tmp_path / "embeddings"))
    flip(dataset / "texts.parquet")
    with pytest.raises(ArtifactError, match=r"not those that were written \(in .*texts\.parquet\)"):
        embed.python_func(dataset=str(dataset), embeddings=at(tmp_path / "embeddings"))
    with pytest.raises(TritowerError, match="not those that were written"):
        ranker.python_func(
            features=str(dataset),
            embeddings=str(dataset),
            ranker_model=at(tmp_path / "m"),
            ranker_scores=at(tmp_path / "s"),
            ranker_metrics=at(tmp_path / "x"),
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset"]


@pytest.mark.slow
def test_two_embed_steps_into_one_output(dataset: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tritower.encoder",
        "embed",
        "--dataset",
        str(dataset),
        "--embeddings",
        str(tmp_path / "out"),
    ]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as one,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as other,
    ):
        said = [child.communicate()[1] for child in (one, other)]
        codes = [one.returncode, other.returncode]
    assert 0 in codes and set(codes) <= {0, 1}
    for code, text in zip(codes, said, strict=True):
        assert code == 0 or "another process is at work on it (the vectors of another embed step)" in text
    assert np.load(tmp_path / "out" / "matrix.npy").shape == (43, 384)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset", "out"]
