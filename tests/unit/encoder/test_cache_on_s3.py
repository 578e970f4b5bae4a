"""The cache of vectors in an object store: moto's S3 server as a process of its own."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSelector
from tritower import storage
from tritower.encoder import step
from tritower.encoder.config import EmbedConfig


def run(tiny: Path, folder: Path, texts: list[str], cache: str) -> tuple[np.ndarray, int]:
    folder.mkdir()
    pq.write_table(pa.table({"value": texts}), folder / "texts.parquet")
    config = EmbedConfig(model=str(tiny), backend="torch", precision="fp32", cache=cache, token_budget=16, segment_texts=3)
    info = step.embed(dataset=folder, embeddings=folder / "out", config=config)
    return np.load(folder / "out" / "matrix.npy"), info["new_texts"]


def test_a_second_run_takes_its_vectors_from_the_store(tiny_model: Path, tmp_path: Path, s3: str) -> None:
    texts = [f"{trade} {word}" for trade in ("nurse", "cook") for word in ("wanted", "acme", "globex", "senior")]
    first, new = run(tiny_model, tmp_path / "one", texts, s3)
    assert new == 8
    second, new = run(tiny_model, tmp_path / "two", [*texts[::-1], "night driver"], s3)
    assert new == 1
    assert np.array_equal(second[:8][::-1], first)
    third, new = run(tiny_model, tmp_path / "three", texts, s3)
    assert new == 0
    assert np.array_equal(third, first)
    store, root = storage.filesystem(s3)
    names = [file.path for file in store.get_file_info(FileSelector(root, recursive=True)) if file.is_file]
    assert len(names) >= 3
    assert all(name.endswith(".arrow") for name in names)
