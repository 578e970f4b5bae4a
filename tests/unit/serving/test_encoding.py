"""The encoder without torch gives the vectors of the embeddings, from any number of threads."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tritower.encoder import backends, models
from tritower.errors import ArtifactError
from tritower.serving.encoding import TextEncoder

from tests.support.bundles import Run

STRANGE = ["", "  ", "night nurse", "Ärztin 日本語 🚚", "x" * 3000, "nurse\x00driver"]


def test_vectors_are_those_of_torch(bundle_folder: Path, run: Run) -> None:
    encoder = TextEncoder(bundle_folder / "encoder")
    texts = [*STRANGE, *pq.read_table(bundle_folder / "dataset" / "texts.parquet")["value"].to_pylist()[:50]]
    expected = backends.encode_texts(models.load(run.sources.encoder), texts)
    np.testing.assert_allclose(encoder(texts), expected, rtol=0, atol=2e-6)


def test_threads_get_the_vectors_of_one_after_another(bundle_folder: Path) -> None:
    encoder = TextEncoder(bundle_folder / "encoder", kept=4)
    encoder.warm(8)
    cold = TextEncoder(bundle_folder / "encoder")
    long = " ".join(f"nurse {number}" for number in range(30))
    np.testing.assert_array_equal(encoder([long]), cold([long]))  # whatever was inferred before
    texts = [f"{word} {number}" for number in range(40) for word in ("nurse", "long haul truck driver", "x")]
    alone = encoder(texts)
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda text: encoder([text])[0], texts))
    np.testing.assert_array_equal(np.stack(together), alone)


def test_a_graph_that_cannot_be_read(bundle_folder: Path, tmp_path: Path) -> None:
    for name in ("encoder.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((bundle_folder / "encoder" / name).read_bytes())
    (tmp_path / "graph.xml").write_text("no graph")
    with pytest.raises(ArtifactError, match="the encoder cannot be read"):
        TextEncoder(tmp_path)
