"""The encoder without torch gives the vectors of the embeddings, from any number of threads."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openvino
import pyarrow.parquet as pq
import pytest
from tritower import storage
from tritower.encoder import backends, models
from tritower.errors import ArtifactError
from tritower.serving.config import Precision
from tritower.serving.encoding import TextEncoder

from tests.bench import serving_precision
from tests.support.bundles import Run

STRANGE = ["", "  ", "night nurse", "Ärztin 日本語 🚚", "x" * 3000, "nurse\x00driver"]


def test_vectors_are_those_of_torch(bundle_folder: Path, run: Run) -> None:
    encoder = TextEncoder(bundle_folder / "encoder", "fp32")
    texts = [*STRANGE, *pq.read_table(bundle_folder / "dataset" / "texts.parquet")["value"].to_pylist()[:50]]
    expected = backends.encode_texts(models.load(run.sources.encoder), texts)
    np.testing.assert_allclose(encoder(texts), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("precision", "least"), [("fp16", 0.99999), ("bf16", 0.999), ("int8", 0.98)])
def test_faster_precisions_are_near_and_say_how_near(bundle_folder: Path, precision: Precision, least: float) -> None:
    """Other numbers than those of fp32, but hardly another direction; encoder.json tells the same of its own sample."""
    texts = pq.read_table(bundle_folder / "dataset" / "texts.parquet")["value"].to_pylist()[:50]
    exact, near = (TextEncoder(bundle_folder / "encoder", one)(texts) for one in ("fp32", precision))
    cosine = np.einsum("xd,xd->x", exact, near)
    assert cosine.min() > least
    told = storage.read_json(bundle_folder / "encoder" / "encoder.json")["fidelity"]
    assert told[precision]["cosine_min"] > least and told["fp32"]["cosine_min"] > 0.999999
    if precision != "bf16":  # which not every processor has
        assert not np.array_equal(exact, near)


def test_the_graph_in_int8_is_made_without_a_bar_where_no_terminal_is(
    bundle_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    backends.with_int8_weights(openvino.Core().read_model(bundle_folder / "encoder" / "graph.xml"))
    assert capfd.readouterr() == ("", "")


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


def test_a_bundle_with_weights_in_float16_is_served_with_them(bundle_folder: Path, tmp_path: Path) -> None:
    here = bundle_folder / "encoder"
    chosen, asked = TextEncoder(here), TextEncoder(here, "fp16")
    assert chosen.precision == asked.precision == "fp16"
    np.testing.assert_array_equal(chosen(STRANGE), asked(STRANGE))
    for file in here.iterdir():
        if not file.name.startswith(("halves", "singles")):
            (tmp_path / file.name).symlink_to(file)
    assert TextEncoder(tmp_path).precision == "fp32"
    with pytest.raises(ArtifactError, match="no weights in fp16") as caught:
        TextEncoder(tmp_path, "fp16")
    assert "mean pooling" in caught.value.remedy and "precision=fp32" in caught.value.remedy


def test_a_graph_that_cannot_be_read(bundle_folder: Path, tmp_path: Path) -> None:
    for name in ("encoder.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((bundle_folder / "encoder" / name).read_bytes())
    (tmp_path / "graph.xml").write_text("no graph")
    with pytest.raises(ArtifactError, match="the encoder cannot be read"):
        TextEncoder(tmp_path)


def test_scores_in_int8_are_near_those_in_fp32(bundle_folder: Path) -> None:
    """Over the whole search, features and towers included; with the comparison that the bench quotes."""
    asked = serving_precision.questions(bundle_folder, 6, candidates=60)
    exact, again, near = (serving_precision.ranked(bundle_folder, one, asked) for one in ("fp32", "fp32", "int8"))
    same = serving_precision.compared(exact, again)
    assert same["largest"] == 0 and same["top 10"] == same["same first"] == 1
    figures = serving_precision.compared(exact, near)
    assert 0 < figures["largest"] < 0.1 and figures["top 10"] > 0.5
