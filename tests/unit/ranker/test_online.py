"""The exported ranker against torch: the same scores, without torch, from document towers by job id; misfits are refused."""

import re
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file, save_file
from tritower import storage
from tritower.errors import ArtifactError, DataError
from tritower.ranker import artifact, documents, export, normaliser, online
from tritower.ranker.artifact import Artifact
from tritower.ranker.config import NetworkConfig, RankerConfig, TrainingConfig
from tritower.ranker.network import ClickModel
from tritower.ranker.online import OnlineRanker
from tritower.ranker.scoring import Scorer

DIM, JOBS = 16, 200  # of the log in conftest.py: texts 60 to 259 are its jobs'
NAMES = ["match", "popularity", "age"]
CONFIGS = {
    "usual": RankerConfig(
        network=NetworkConfig(
            query_tower=(12,), document_tower=(12,), interaction_tower=(9, 7), head=(11,), occupation_classes=5
        )
    ),
    "bare": RankerConfig(
        network=NetworkConfig(
            query_tower=(9,),
            document_tower=(8,),
            interaction_tower=(7,),
            head=(6,),
            occupation_classes=0,
            descriptions=False,
            cross_layers=0,
        ),
        training=TrainingConfig(members=1),
    ),
    "deep": RankerConfig(
        network=NetworkConfig(
            query_tower=(9, 8),
            document_tower=(10, 5),
            interaction_tower=(9, 8, 7),
            head=(6, 9, 4),
            occupation_classes=3,
            cross_layers=1,
            cross_rank=2,
        ),
        training=TrainingConfig(members=2, normaliser="standard"),
    ),
}


@dataclass
class Served:
    """A model, its export, and the log's data with descriptions for two jobs of three."""

    loaded: Artifact
    model: Path
    export: Path
    features: Path
    embeddings: Path
    ranker: OnlineRanker

    def dataset(self, folder: Path, text_J: np.ndarray, matrix_TD: np.ndarray) -> tuple[Path, Path]:
        """The folders of ingest and encoder for jobs with these texts; every third has no description."""
        data, embeddings = folder / "dataset", folder / "embeddings"
        data.mkdir(parents=True)
        embeddings.mkdir()
        described = pa.array([None if n % 3 == 0 else int(t) for n, t in enumerate(text_J)], pa.int32())
        columns = {"job_id": [f"j{n}" for n in range(len(text_J))], "document_text": text_J, "description_text": described}
        pq.write_table(pa.table(columns), data / "jobs.parquet")
        np.save(embeddings / "matrix.npy", matrix_TD)
        storage.write_json(embeddings / "encoder.json", self.loaded.encoder)
        return data, embeddings


def build(log: Any, folder: Path, config: RankerConfig, seed: int = 0) -> Served:
    random = np.random.default_rng(seed)
    torch.manual_seed(seed)
    members = [ClickModel(config.network, dim=DIM, features=len(NAMES)).eval() for _ in range(config.training.members)]
    with torch.no_grad():
        for member in members:
            for weight in member.parameters():  # a part that starts at 0 would not be missed
                weight += 0.1 * torch.randn_like(weight)
    for split in ("validation", "test"):
        (folder / "features" / split).mkdir(parents=True)
        for part in sorted((log.features / split).glob("*.parquet")):
            table = pq.read_table(part)
            text = pa.array([None if t % 3 == 0 else int(t) for t in table["document_text"].to_pylist()], pa.int32())
            pq.write_table(table.append_column("description_text", text), folder / "features" / split / part.name)
    (folder / "features/features.json").write_bytes((log.features / "features.json").read_bytes())
    sample_NF = random.normal(size=(500, 3)).astype(np.float32) * [1, 20, 100]
    fitted = normaliser.fit(sample_NF.astype(np.float32), kind=config.training.normaliser)
    encoder = storage.read_json(log.embeddings / "encoder.json")
    loaded = Artifact(config, NAMES, encoder, fitted, members)
    artifact.save(folder / "model", loaded, {})
    paths = folder / "model", folder / "export", folder / "features", log.embeddings
    export.write(model=paths[0], features=paths[2], embeddings=paths[3], out=paths[1])
    return Served(loaded, *paths, OnlineRanker.load(paths[1]))


@pytest.fixture(scope="module", params=CONFIGS)
def served(log: Any, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Served:
    return build(log, tmp_path_factory.mktemp(request.param), CONFIGS[request.param])


@pytest.fixture(scope="module")
def usual(log: Any, tmp_path_factory: pytest.TempPathFactory) -> Served:
    return build(log, tmp_path_factory.mktemp("usual"), CONFIGS["usual"])


def by_torch(served: Served, matrix_TD: np.ndarray, query: int, text_N: np.ndarray, feature_NF: np.ndarray) -> np.ndarray:
    """What the step's scorer gives; every third text has no description."""
    described = served.loaded.config.network.descriptions
    description_N1 = np.where(text_N % 3 == 0, -1, text_N).astype(np.int32)[:, None][:, : int(described)]
    scorer = Scorer(served.loaded, matrix_TD)
    return scorer.score(np.full(len(text_N), query), text_N, np.ascontiguousarray(feature_NF), description_N1)


def by_export(served: Served, matrix_TD: np.ndarray, query: int, text_N: np.ndarray, feature_NF: np.ndarray) -> np.ndarray:
    description_N = np.where(text_N % 3 == 0, -1, text_N) if served.ranker.described else None
    table_NT = served.ranker.documents(documents.vectors(matrix_TD, text_N, description_N))
    return served.ranker.score(served.ranker.query(matrix_TD[query]), table_NT, np.arange(len(text_N)), feature_NF)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    feature_NF=st.integers(1, 300).flatmap(
        lambda n: hnp.arrays(np.float32, (n, 3), elements=st.floats(width=32), fill=st.sampled_from([0.0, 1.5, np.nan]))
    ),
    absent=st.lists(st.integers(0, 2), max_size=3),
)
def test_the_export_scores_as_the_step_does(served: Served, seed: int, feature_NF: np.ndarray, absent: list[int]):
    """Any numbers as features, infinities included; missing for a row or for all; texts that nobody has seen."""
    random = np.random.default_rng(seed)
    feature_NF[:, absent] = np.nan
    matrix_TD = random.normal(size=(50, DIM))
    matrix_TD = (matrix_TD / np.linalg.norm(matrix_TD, axis=1, keepdims=True)).astype(np.float16)
    text_N = random.integers(0, 50, len(feature_NF))
    ours, theirs = (by(served, matrix_TD, 7, text_N, feature_NF) for by in (by_export, by_torch))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rows", [0, 1, 95, 96, 97, 1000])
def test_rows_of_whole_and_of_broken_blocks(usual: Served, rows: int):
    random = np.random.default_rng(rows)
    matrix_TD = np.load(usual.embeddings / "matrix.npy")
    text_N, feature_NF = random.integers(60, 260, rows), random.normal(size=(rows, 3)).astype(np.float32)
    expected = by_torch(usual, matrix_TD, 3, text_N, feature_NF) if rows else np.empty(0)
    np.testing.assert_allclose(by_export(usual, matrix_TD, 3, text_N, feature_NF), expected, rtol=0, atol=1e-6)
    columns = np.asfortranarray(feature_NF)
    np.testing.assert_array_equal(*(by_export(usual, matrix_TD, 3, text_N, one) for one in (feature_NF, columns)))


def test_the_difference_to_torch_stands_in_the_export(served: Served):
    facts = storage.read_json(served.export / "join.json")
    assert facts["compared_rows"] == {"real": 100 * 8, "random": 4000}  # searches of the first file
    assert 0 <= max(facts["largest_difference"].values()) <= online.TOLERANCE
    assert facts["model"] == export.identity(served.model) == served.ranker.model
    assert facts["features"] == NAMES and served.ranker.examination == served.loaded.examination()


def test_threads_share_one_ranker(usual: Served):
    random = np.random.default_rng(0)
    matrix_TD = np.load(usual.embeddings / "matrix.npy")
    asked = [(n, random.integers(60, 260, 400), random.normal(size=(400, 3)).astype(np.float32)) for n in range(8)]
    alone = [by_export(usual, matrix_TD, *one) for one in asked]
    found: dict[int, np.ndarray] = {}

    def answer(n: int) -> None:
        for _ in range(20):
            found[n] = by_export(usual, matrix_TD, *asked[n])

    threads = [threading.Thread(target=answer, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n, scores in enumerate(alone):
        np.testing.assert_array_equal(found[n], scores)


def test_a_broken_vector_shows_in_the_score_and_a_row_that_is_not_there_is_refused(usual: Served):
    matrix_TD = np.load(usual.embeddings / "matrix.npy").astype(np.float32)
    matrix_TD[70] = np.nan
    feature_NF = np.zeros((2, 3), np.float32)
    scores = by_export(usual, matrix_TD, 3, np.array([70, 71]), feature_NF)
    assert np.isnan(scores[0]) and np.isfinite(scores[1])
    table_NT = usual.ranker.documents(np.zeros((2, 2 * DIM), np.float32))
    for row_N in ([0, 2], [-1, 0]):
        with pytest.raises(IndexError, match="of a table of 2 documents"):
            usual.ranker.score(usual.ranker.query(matrix_TD[3]), table_NT, np.array(row_N), feature_NF)


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # importing it raises ImportError
from pathlib import Path
import numpy as np
from tritower.ranker import documents
from tritower.ranker.online import OnlineRanker
ranker = OnlineRanker.load(Path(sys.argv[1]))
table = documents.load(Path(sys.argv[2]), ranker)
matrix = np.load(sys.argv[3])
print(*ranker.score(ranker.query(matrix[3]), table.table_JT, table.rows(["j9", "j1"]), np.ones((2, 3), np.float32)))
"""


def test_it_scores_where_torch_cannot_be_imported(usual: Served, tmp_path: Path):
    matrix_TD = np.load(usual.embeddings / "matrix.npy")
    text_J = np.arange(60, 60 + JOBS)
    data, embeddings = usual.dataset(tmp_path, text_J, matrix_TD)
    assert documents.write(ranker=usual.ranker, dataset=data, embeddings=embeddings, out=tmp_path / "towers") == JOBS
    program = [sys.executable, "-c", WITHOUT_TORCH, usual.export, tmp_path / "towers", usual.embeddings / "matrix.npy"]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    found = [float(word) for word in done.stdout.split()]
    np.testing.assert_allclose(found, by_torch(usual, matrix_TD, 3, text_J[[9, 1]], np.ones((2, 3), np.float32)), atol=1e-6)


def test_document_towers_outlive_a_datasets_numbers(usual: Served, tmp_path: Path):
    """The next day's dataset has lost the oldest jobs and numbers its texts anew."""
    matrix_TD = np.load(usual.embeddings / "matrix.npy")
    random = np.random.default_rng(0)
    order_T = random.permutation(len(matrix_TD))
    place_T = np.argsort(order_T)
    text_J = np.arange(60, 60 + JOBS)
    tables = []
    for day, (texts, jobs) in enumerate([(text_J, matrix_TD), (place_T[text_J], matrix_TD[order_T])]):
        data, embeddings = usual.dataset(tmp_path / str(day), texts, jobs)
        documents.write(ranker=usual.ranker, dataset=data, embeddings=embeddings, out=tmp_path / str(day) / "towers")
        tables.append(documents.load(tmp_path / str(day) / "towers", usual.ranker))
    asked = [f"j{n}" for n in random.permutation(JOBS)]
    rows = [table.rows(asked) for table in tables]
    np.testing.assert_allclose(tables[0].table_JT[rows[0]], tables[1].table_JT[rows[1]], rtol=0, atol=1e-6)
    query = usual.ranker.query(matrix_TD[3])
    feature_NF = random.normal(size=(JOBS, 3)).astype(np.float32)
    first, second = (
        usual.ranker.score(query, table.table_JT, row_N, feature_NF) for table, row_N in zip(tables, rows, strict=True)
    )
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-6)
    with pytest.raises(DataError, match="1 of 2 jobs are not in the table, first 'gone'"):
        tables[0].rows(["j1", "gone"])


def test_document_towers_of_another_model_or_encoder_are_refused(log: Any, usual: Served, tmp_path: Path):
    matrix_TD = np.load(usual.embeddings / "matrix.npy")
    data, embeddings = usual.dataset(tmp_path, np.arange(60, 70), matrix_TD)
    documents.write(ranker=usual.ranker, dataset=data, embeddings=embeddings, out=tmp_path / "towers")
    other = build(log, tmp_path / "other", CONFIGS["usual"], seed=1).ranker
    with pytest.raises(ArtifactError, match=f"computed with model {usual.ranker.model}, asked for is {other.model}"):
        documents.load(tmp_path / "towers", other)
    facts = storage.read_json(embeddings / "encoder.json")
    storage.write_json(embeddings / "encoder.json", facts | {"hash": "new"})
    with pytest.raises(ArtifactError, match="the embeddings are of encoder new, the model was trained with abc123"):
        documents.write(ranker=usual.ranker, dataset=data, embeddings=embeddings, out=tmp_path / "again")
    assert not (tmp_path / "again").exists()
    for key, value, problem in (("encoder", "new", "computed with encoder new"), ("version", 0, "have version 0")):
        changed(tmp_path / "towers", "documents.json", {key: value})
        with pytest.raises(ArtifactError, match=problem):
            documents.load(tmp_path / "towers", usual.ranker)
        changed(tmp_path / "towers", "documents.json", {"encoder": "abc123", "version": documents.VERSION})


def changed(folder: Path, file: str, facts: dict[str, object]) -> None:
    """Change a JSON file of a folder as if it had been written so."""
    (folder / storage.MARK).unlink(missing_ok=True)
    storage.write_json(folder / file, storage.read_json(folder / file) | facts)


def test_a_damaged_export_is_refused(log: Any, tmp_path: Path):
    folder = build(log, tmp_path, CONFIGS["usual"]).export
    weights = folder / "join.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-8] + bytes(8))
    with pytest.raises(ArtifactError, match="bytes are not those that were written"):
        OnlineRanker.load(folder)
    # Copied without its manifest, what is damaged shows in the probes.
    (folder / storage.MARK).unlink()
    weights.write_bytes(whole[:-100])
    with pytest.raises(ArtifactError, match="do not fit each other"):
        OnlineRanker.load(folder)
    for name, problem in (("2.head", ""), ("1.logit.bias", "a score differs by"), ("normaliser.value", "a score differs by")):
        weights.write_bytes(whole)
        tensors = load_file(weights)
        if problem:
            tensors[name] = tensors[name] + np.float32(0.01)
        else:
            tensors = {key: value for key, value in tensors.items() if not key.startswith(name)} | {
                "1.logit.weight": np.zeros(3)
            }
        save_file(tensors, weights)
        with pytest.raises(ArtifactError, match=problem or "do not fit each other"):
            OnlineRanker.load(folder)
    weights.write_bytes(whole)
    changed(folder, "join.json", {"version": 99})
    with pytest.raises(ArtifactError, match=f"version 99, this tritower reads version {online.VERSION}"):
        OnlineRanker.load(folder)


def test_an_export_that_differs_from_torch_is_not_written(usual: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(ArtifactError, match="the export's scores differ from torch's by up to"):
        export.write(model=usual.model, features=usual.features, embeddings=usual.embeddings, out=tmp_path / "export")
    assert not (tmp_path / "export").exists()


def test_the_readmes_example_runs(usual: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    readme = Path(export.__file__).with_name("README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", readme.split("## Serving pieces")[1].split("\n## ")[0], flags=re.DOTALL)
    matrix_TD = np.load(usual.embeddings / "matrix.npy")
    usual.dataset(tmp_path, np.arange(60, 60 + JOBS), matrix_TD)
    for name, folder in (("model", usual.model), ("features", usual.features)):
        (tmp_path / name).symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    names = {"query_vector": matrix_TD[3], "job_ids": ["j4", "j2"], "columns": dict.fromkeys(NAMES, np.ones(2, np.float32))}
    exec(example, names)
    expected = by_torch(usual, matrix_TD, 3, np.array([64, 62]), np.ones((2, 3), np.float32))
    np.testing.assert_allclose(names["scores"], expected, rtol=0, atol=1e-6)
