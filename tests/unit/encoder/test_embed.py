import shutil
import signal
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tritower import storage
from tritower.encoder import fidelity, models, step
from tritower.encoder.cache import VectorCache, keys_of
from tritower.encoder.config import EmbedConfig
from tritower.errors import ArtifactError, ConfigError, DataError, StorageError

from tests.support import killed

STRANGE = ["", " ".join(["nurse"] * 10_000), "🚚👩‍⚕️", "водитель грузовика トラック運転手 driver", "nurse\u0000driver"]


def write_texts(folder: Path, texts: list[str]) -> Path:
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"value": pa.array(texts, pa.string())}), folder / "texts.parquet")
    return folder


def run(dataset: Path, tiny: Path, out: Path, **knobs: object) -> tuple[np.ndarray, dict[str, float]]:
    config = EmbedConfig(model=str(tiny), **({"precision": "fp32", "backend": "torch"} | knobs))
    step.embed(dataset=dataset, embeddings=out, config=config)
    return np.load(out / "matrix.npy"), storage.read_json(out / "encoder.json")


@pytest.mark.parametrize(
    ("backend", "precision"),
    [("torch", "fp32"), ("torch", "bf16"), ("openvino", "fp32"), ("openvino", "bf16"), ("openvino", "int8")],
)
def test_every_backend_gives_the_vectors_of_encode(
    dataset: Path, exported_model: Path, tmp_path: Path, backend: str, precision: str
) -> None:
    matrix, info = run(dataset, exported_model, tmp_path / "out", backend=backend, precision=precision)
    texts = pq.read_table(dataset / "texts.parquet").column("value").to_pylist()
    expected = models.load(exported_model).encode(texts)
    assert (matrix.dtype, matrix.shape, info["backend"]) == (np.float16, expected.shape, f"{backend}-{precision}")
    tolerance = {"fp32": 1e-3, "bf16": 2e-2, "int8": 0.2}[precision]
    assert np.abs(matrix.astype(np.float32) - expected).max() < tolerance
    assert info["cosine_min"] > {"fp32": 0.999999, "bf16": 0.999, "int8": 0.95}[precision]


def test_strange_texts_are_embedded_like_encode_does(tiny_model: Path, tmp_path: Path) -> None:
    matrix, info = run(write_texts(tmp_path / "dataset", STRANGE), tiny_model, tmp_path / "out")
    assert np.abs(matrix - models.load(tiny_model).encode(STRANGE)).max() < 1e-3
    assert info["truncated"] == 1
    assert np.allclose(np.linalg.norm(matrix.astype(np.float32), axis=1), 1, atol=1e-3)


def test_the_index_names_each_rows_text(dataset: Path, tiny_model: Path, tmp_path: Path) -> None:
    run(dataset, tiny_model, tmp_path / "out")
    with pa.memory_map(str(tmp_path / "out" / "index.arrow")) as source:
        index = pa.ipc.open_file(source).read_all()
    texts = pq.read_table(dataset / "texts.parquet").column("value").to_pylist()
    assert index.column("key").combine_chunks().equals(keys_of(texts))
    assert index.column("text").to_pylist() == list(range(len(texts)))


def test_a_second_day_computes_only_what_is_new(tiny_model: Path, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    texts = [f"{a} {b}" for a in ("nurse", "cook", "driver") for b in ("wanted", "acme", "globex", "senior")]
    first, info = run(write_texts(tmp_path / "one", texts[:9]), tiny_model, tmp_path / "a", cache=cache)
    assert info["new_texts"] == 9
    files = {path: path.stat().st_mtime_ns for path in Path(cache).rglob("*.arrow")}
    second, info = run(write_texts(tmp_path / "two", texts[::-1]), tiny_model, tmp_path / "b", cache=cache)
    assert info["new_texts"] == 3
    assert np.array_equal(second[::-1][:9], first)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in files.items())
    _, info = run(tmp_path / "two", tiny_model, tmp_path / "c", cache=cache)
    assert info["new_texts"] == 0
    _, info = run(tmp_path / "two", tiny_model, tmp_path / "d", cache=cache, precision="bf16")
    assert info["new_texts"] == 12


@pytest.mark.slow
def test_two_processes_write_the_matrix_of_one(
    dataset: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    one, _ = run(dataset, tiny_model, tmp_path / "one", token_budget=16)
    two, info = run(dataset, tiny_model, tmp_path / "two", token_budget=16, processes=2)
    assert np.abs(one.astype(np.float32) - two.astype(np.float32)).max() <= 2**-12  # one step of float16
    assert info["new_texts"] == len(one)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_killed_run_goes_on_where_it_stopped(tiny_model: Path, tmp_path: Path, processes: ForkServerContext) -> None:
    texts = [f"nurse {a}{b} wanted {c}" for a in "abcdefgh" for b in "abcdefgh" for c in "abcdef"]
    log = write_texts(tmp_path / "dataset", texts)
    cache = tmp_path / "cache"
    settings = {"precision": "fp32", "backend": "torch", "token_budget": 16, "segment_texts": 8}
    config = EmbedConfig(model=str(tiny_model), cache=str(cache), **settings)
    places = {"dataset": log, "embeddings": tmp_path / "out", "config": config}
    process = processes.Process(target=killed.at, args=(cache, "**/*.arrow", step.embed), kwargs=places)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    resumed, info = run(log, tiny_model, tmp_path / "out", cache=str(cache), token_budget=16)
    assert 0 < info["new_texts"] < len(texts)
    whole, _ = run(log, tiny_model, tmp_path / "whole", token_budget=16)
    assert np.abs(resumed.astype(np.float32) - whole.astype(np.float32)).max() <= 2**-12


def test_a_precision_that_disagrees_gives_way_to_fp32(
    dataset: Path, exported_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tritower.encoder.backends.native_precision", lambda device: "int8")
    _, info = run(dataset, exported_model, tmp_path / "out", precision="auto", backend="auto", min_overlap=1.0)
    assert (info["backend"], info["top10_overlap"]) == ("openvino-fp32", 1.0)


def test_fidelity_by_hand() -> None:
    a = np.array([[1, 0], [0, 1], [-1, 0]], np.float32)
    b = np.array([[0.6, 0.8], [0, 1], [-1, 0]], np.float32)
    figures = fidelity.compare(a, b, top=1)
    assert figures["cosine_min"] == pytest.approx(0.6)
    assert figures["cosine_mean"] == pytest.approx((0.6 + 1 + 1) / 3)
    # nearest of a: 1, (0 or 2), 1; of b: 1, 0, 1
    assert figures["top10_overlap"] in (pytest.approx(2 / 3), pytest.approx(1))


def test_missing_counts_a_repeated_text_once(tmp_path: Path) -> None:
    cache = VectorCache(str(tmp_path / "cache"), 2)
    keys = keys_of(["a", "b", "a", "c", "c"])
    assert cache.missing(keys).tolist() == [0, 1, 3]
    cache.add(keys_of(["b"]), np.array([[1, 0]], np.float16))
    assert cache.missing(keys).tolist() == [0, 3]
    with pytest.raises(StorageError, match="4 vectors are missing"):
        cache.gather(keys, np.empty((5, 2), np.float16), np.arange(5))


def test_bad_input_is_one_clear_error(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="table of texts is missing"):
        run(tmp_path, tiny_model, tmp_path / "out")
    with pytest.raises(DataError, match="holds no text"):
        run(write_texts(tmp_path / "empty", []), tiny_model, tmp_path / "out")
    with pytest.raises(ConfigError, match="int8"):
        EmbedConfig(backend="torch", precision="int8")
    log = write_texts(tmp_path / "dataset", ["nurse", "cook"])
    run(log, tiny_model, tmp_path / "out", cache=str(tmp_path / "cache"))
    segment = next((tmp_path / "cache").rglob("*.arrow"))
    segment.write_bytes(segment.read_bytes()[:-40])
    with pytest.raises(StorageError, match="cannot be read"):
        run(log, tiny_model, tmp_path / "again", cache=str(tmp_path / "cache"))
    assert not (tmp_path / "again").exists()


def test_descriptions_are_embedded_by_the_model_that_was_tuned(tiny_model: Path, tmp_path: Path) -> None:
    tuned = tmp_path / "tuned"
    shutil.copytree(tiny_model, tuned)
    changed = models.load(tuned)
    with torch.no_grad():
        for weight in models.transformer_of(changed).parameters():
            weight.mul_(1.5)
    changed.save_pretrained(str(tuned), safe_serialization=True)
    note = {"name": "tuned", "base": str(tiny_model), "base_hash": models.content_hash(tiny_model)}
    storage.write_json(tuned / "finetune.json", note)
    texts = ["nurse", "night nurse wanted", "lead cook", "part time"]
    dataset = write_texts(tmp_path / "dataset", texts)
    flags = {"is_query": [1, 0, 0, 0], "is_title": [0, 0, 0, 0], "is_document": [0, 0, 1, 0], "is_profile": [0, 0, 0, 0]}
    kinds = {name: pa.array(values).cast(pa.bool_()) for name, values in (flags | {"is_description": [1, 1, 0, 1]}).items()}
    pq.write_table(pa.table({"value": texts, **kinds}), dataset / "texts.parquet")
    matrix, info = run(dataset, tuned, tmp_path / "out")
    # The first is a query, too: a cosine with it has to mean something.
    expected = np.stack([(models.load(tuned) if i in (0, 2) else models.load(tiny_model)).encode(texts[i]) for i in range(4)])
    assert np.abs(matrix - expected).max() < 1e-3 < np.abs(models.load(tuned).encode(texts) - expected).max()
    same, info_same = run(dataset, tuned, tmp_path / "same", descriptions="same")
    assert np.abs(same - models.load(tuned).encode(texts)).max() < 1e-3
    assert info_same["hash"] == models.content_hash(tuned) != info["hash"]
    assert info["descriptions"] == str(tiny_model)

    storage.write_json(tuned / "finetune.json", note | {"base_hash": "0" * 64})
    with pytest.raises(ArtifactError, match="not the model that the encoder was fine-tuned from"):
        run(dataset, tuned, tmp_path / "other")
    storage.write_json(tuned / "finetune.json", note | {"base": str(tmp_path / "gone")})
    with pytest.raises(ArtifactError, match="is not here"):
        run(dataset, tuned, tmp_path / "other")
    assert not (tmp_path / "other").exists()
