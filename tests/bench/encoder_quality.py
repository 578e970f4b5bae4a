"""Fine-tuning here against the older `fit` loop on the same triplets: does the speed cost quality?

    python tests/bench/encoder_quality.py --dataset DIR [--clicks 1500] [--rate 2e-5]

DIR is ingest's output for a generated log with a randomised slice. Prints the AUC of cosine(query, document) for clicks on the
randomised test rows, for the base model and after one epoch on the same triplets (one negative per click) both ways, and the
CPU seconds of each.
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow.dataset as pads
from bench_encoder import BASE, fit
from sentence_transformers import SentenceTransformer
from timing import cpu_seconds
from tritower.encoder import finetuning, models, tables, training
from tritower.encoder.config import FinetuneConfig
from tritower.evaluation.auc import auc


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Quality of two ways to fine-tune on the same triplets.")
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--clicks", type=int, default=1500)
    parser.add_argument("--rate", type=float, default=2e-5)
    given = parser.parse_args()
    texts = tables.texts(given.dataset)
    config = FinetuneConfig(negatives_per_click=1, max_clicks=given.clicks, learning_rate=given.rate)
    base = models.load(models.find(BASE))
    examples = finetuning.examples(given.dataset, config, texts, base)
    rows = pads.dataset(given.dataset / "impressions/test", format="parquet").to_table(filter=pads.field("randomised"))
    query, document = (rows[name].to_numpy() for name in ("query_text", "document_text"))
    clicked = rows["clicked"].to_numpy()
    used, place = np.unique(np.concatenate([query, document]), return_inverse=True)

    def quality(model: SentenceTransformer) -> float:
        vector = model.encode([texts[i] for i in used], normalize_embeddings=True, show_progress_bar=False)
        cosine = (vector[place[: len(query)]] * vector[place[len(query) :]]).sum(1)
        return auc(((1 + cosine) / 2).astype(np.float32), clicked)

    print(f"{len(clicked):,} randomised rows, {int(clicked.sum()):,} clicks; base {quality(base):.4f}", flush=True)
    ours: list[SentenceTransformer] = []
    old = models.load(models.find(BASE))
    seconds = cpu_seconds(lambda: ours.append(_train(examples, texts, config)))
    print(f"ours {quality(ours[0]):.4f} in {seconds:.0f} CPU s", flush=True)
    seconds = cpu_seconds(lambda: fit(old, examples, texts))
    print(f"fit  {quality(old):.4f} in {seconds:.0f} CPU s", flush=True)


def _train(examples: object, texts: list[str], config: FinetuneConfig) -> SentenceTransformer:
    model = models.load(models.find(BASE))
    training.train(model, examples, texts, config, Path("none"))  # type: ignore[arg-type]
    return model


if __name__ == "__main__":
    main()
