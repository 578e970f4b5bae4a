"""What fine-tuning gains on a generated log: for any knobs, or against the older `fit` loop on the same triplets.

    python tests/bench/encoder_quality.py --raw RAW --dataset DIR --knobs '{"max_clicks": 4500}' [--knobs ...]
    python tests/bench/encoder_quality.py --raw RAW --dataset DIR --fit [--clicks 1500]

RAW is a log with a randomised slice as `tritower.simulate` writes it, DIR ingest's output for it. Prints, on the test split,
for the base model and each fine-tuned one: AUC of cosine(query, document) over the randomised rows, against clicks and against
the true click probabilities; triplet accuracy and recall of clicked jobs among the ten nearest of all jobs over 500 searches;
mean average precision on the judged titles; CPU seconds of training.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from bench_encoder import BASE, PUBLISHED, fit
from sentence_transformers import SentenceTransformer
from sklearn.metrics import roc_auc_score
from timing import cpu_seconds
from tritower.config import from_dict
from tritower.encoder import backends, finetuning, models, quality, tables, training, triplets
from tritower.encoder.config import FinetuneConfig

TITLES = Path(__file__).parents[1] / "data" / "avature_jobtitle"


class Bench:
    """Reads the test split once; call it with a model for a line of figures."""

    def __init__(self, raw: Path, dataset: Path) -> None:
        self.texts = tables.texts(dataset)
        rows = pads.dataset(dataset / "impressions/test", format="parquet").to_table(filter=pads.field("randomised"))
        truth = pads.dataset(raw / "truth", format="parquet").to_table(columns=["request_id", "job_id", "relevance"])
        for name in ("request", "job"):
            numbers = pq.read_table(dataset / f"{name}s.parquet", columns=[name, f"{name}_id"])
            rows = rows.join(numbers.set_column(0, name, numbers[name].cast(rows[name].type)), name)
        rows = rows.join(truth.cast(pa.schema([truth.schema.field(0), truth.schema.field(1), ("relevance", pa.float64())])),
                         ["request_id", "job_id"])  # fmt: skip
        columns = ("query_text", "document_text", "clicked", "relevance")
        self.query_N, self.document_N, self.clicked_N, self.relevance_N = (rows[name].to_numpy() for name in columns)
        self.held_out = quality.held_out(
            triplets.Shown.concatenate(list(tables.shown(dataset, "test"))), tables.documents(dataset),
            requests=500, jobs=10**9, empty_query=finetuning.number_of(self.texts, ""), seed=7,
        )  # fmt: skip
        self.judged = tables.judged_titles(TITLES)

    def __call__(self, name: str, model: SentenceTransformer, seconds: float) -> None:
        """Print one line."""
        model.eval()
        used = np.unique(np.r_[self.query_N, self.document_N, self.held_out.texts()])
        vector_TD = finetuning.vectors(model, self.texts, used)
        cosine_N = np.einsum("nd,nd->n", vector_TD[self.query_N], vector_TD[self.document_N])
        both = np.r_[np.ones(len(cosine_N)), np.zeros(len(cosine_N))], np.r_[cosine_N, cosine_N]
        true = roc_auc_score(*both, sample_weight=np.r_[self.relevance_N, 1 - self.relevance_N])
        figures = quality.measure(self.held_out, vector_TD)
        sides = (backends.encode_texts(model, part, "fp32") for part in (self.judged.queries, self.judged.titles))
        print(
            f"{name}: AUC {roc_auc_score(self.clicked_N, cosine_N):.4f}, true {true:.4f}, "
            f"triplets {figures['triplet_accuracy']:.3f}, recall@10 {figures['recall@10_jobs']:.3f}, "
            f"titles {quality.title_map(*sides, self.judged.relevant_QM):.3f}, {seconds:.0f} CPU s",
            flush=True,
        )


def tuned(bench: Bench, name: str, train: Callable[[SentenceTransformer], object]) -> None:
    """Train the base model and print its line."""
    model = models.load(models.find(BASE))
    bench(name, model, cpu_seconds(lambda: train(model)))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="What fine-tuning gains on a generated log.")
    parser.add_argument("--raw", type=Path, required=True)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--knobs", type=json.loads, action="append", default=[], help="of FinetuneConfig, as JSON")
    parser.add_argument("--fit", action="store_true", help="compare with the older fit loop")
    parser.add_argument("--clicks", type=int, default=1500)
    given = parser.parse_args()
    bench = Bench(given.raw, given.dataset)
    bench("base", models.load(models.find(BASE)), 0.0)

    def train(model: SentenceTransformer, config: FinetuneConfig) -> None:
        clicks = finetuning.examples(given.dataset, config, bench.texts, model)
        with tempfile.TemporaryDirectory() as checkpoints:
            training.train(model, *finetuning.with_titles(clicks, bench.texts, config), config, Path(checkpoints))

    for knobs in given.knobs:
        tuned(bench, json.dumps(knobs), lambda model, knobs=knobs: train(model, from_dict(FinetuneConfig, knobs)))
    if given.fit:
        config = from_dict(FinetuneConfig, {**PUBLISHED, "negatives_per_click": 1, "max_clicks": given.clicks})
        clicks = finetuning.examples(given.dataset, config, bench.texts, models.load(models.find(BASE)))
        tuned(bench, "ours", lambda model: train(model, config))
        tuned(bench, "fit", lambda model: fit(model, clicks, bench.texts))


if __name__ == "__main__":
    main()
