"""From a dataset and a base model to a fine-tuned one, measured before and after."""

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from sentence_transformers import SentenceTransformer

from tritower import vocabulary
from tritower.encoder import backends, quality, report, tables, triplets
from tritower.encoder.config import FinetuneConfig
from tritower.encoder.titles import pairs as pairs_of_titles
from tritower.errors import DataError
from tritower.pages.page import html

LOG = logging.getLogger(__name__)
Floats = npt.NDArray[np.float32]
MIN_RANDOMISED = 200
"""Randomised searches with a click and a pass from which on the encoder is measured on them alone."""
DECIDING = ("triplet_accuracy", "auc_shown", "map_shown", "map_jobs")
"""Measures by none of which a new encoder may be worse than the old one."""


def examples(dataset: Path, config: FinetuneConfig, texts: list[str], model: SentenceTransformer) -> triplets.Clicks:
    """The training examples of a dataset: train requests only.

    Raises:
        DataError: the train split has no click that a negative goes with.
    """
    settings = {
        "negatives": config.negatives_per_click,
        "skipped_above": config.negatives == "skipped_above",
        "empty_query": number_of(texts, ""),
        "seed": config.seed,
    }
    kept: triplets.Clicks | None = None
    for block in tables.shown(dataset, "train"):
        fresh = triplets.clicks_of(block, **settings)  # type: ignore[arg-type]
        joined = fresh if kept is None else triplets.Clicks.concatenate([kept, fresh])
        kept = triplets.cap(joined, per_user=config.max_clicks_per_user, total=config.max_clicks)
    if kept is None or not len(kept):
        raise DataError(
            "no click with a query and a document passed over in the same search",
            where=str(dataset / "impressions" / "train"),
            remedy="Give a longer window, or set `epochs` to 0 to use the encoder as it is.",
        )
    if config.negatives in ("mined", "shown+mined"):
        used = np.unique(np.r_[kept.anchor_C, kept.positive_C, kept.negative_CK.ravel()])
        mined = triplets.mine(kept, vectors(model, texts, used), negatives=config.negatives_per_click, seed=config.seed)
        shown = config.negatives_per_click // 2 if config.negatives == "shown+mined" else 0
        kept.negative_CK[:, shown:] = mined.negative_CK[:, shown:]
    return kept


def with_titles(clicks: triplets.Clicks, texts: list[str], config: FinetuneConfig) -> tuple[triplets.Clicks, list[str]]:
    """`clicks` and `title_pairs` examples of the vocabulary, and the texts that all of them are numbered by."""
    if not config.title_pairs:
        return clicks, texts
    table = vocabulary.titles()
    pairs, titles = pairs_of_titles(
        table.column("title").to_pylist(),
        table.column("occupation").to_pylist(),
        count=config.title_pairs,
        negatives=config.negatives_per_click,
        seed=config.seed,
    )
    return triplets.Clicks.concatenate([clicks, pairs.shifted(len(texts))]), texts + titles


def number_of(texts: list[str], value: str) -> int:
    """The number of a text, -1 where there is none."""
    return texts.index(value) if value in texts else -1


def vectors(model: SentenceTransformer, texts: list[str], numbers: npt.NDArray[np.int64]) -> Floats:
    """Vectors by text number (T, D); only the rows of `numbers` are computed, the others are never touched."""
    found = backends.encode_texts(model, [texts[i] for i in numbers], backends.native_precision(model.device))
    vector_TD = np.zeros((len(texts), found.shape[1]), np.float32)
    vector_TD[numbers] = found
    return vector_TD


def _held_out(dataset: Path, config: FinetuneConfig, texts: list[str], *, randomised: bool) -> quality.HeldOut:
    return quality.held_out(
        triplets.Shown.concatenate(list(tables.shown(dataset, "validation", randomised=randomised))),
        tables.documents(dataset),
        requests=config.evaluation_requests,
        jobs=config.evaluation_jobs,
        empty_query=number_of(texts, ""),
        seed=config.seed,
    )


class Judge:
    """Measures an encoder on held-out searches of the validation window and on judged titles, and keeps what the report shows.

    The searches are those whose results were shown in random order where there are enough of them: elsewhere a click says as
    much about where the old ranking put a job as about what was asked for, and a better encoder can look worse.

    Raises:
        DataError: no search of the window has both a click and a pass.
    """

    def __init__(self, dataset: Path, config: FinetuneConfig, texts: list[str]) -> None:
        self.texts = texts
        self.data = _held_out(dataset, config, texts, randomised=True)
        self.randomised = len(np.unique(self.data.shown.request_N)) >= min(MIN_RANDOMISED, config.evaluation_requests)
        if not self.randomised:
            self.data = _held_out(dataset, config, texts, randomised=False)
        if not len(self.data.shown.request_N):
            raise DataError(
                "no search with a click and a document passed over",
                where=str(dataset / "impressions" / "validation"),
                remedy="Give a longer window, or set `epochs` to 0 to use the encoder as it is.",
            )
        self.titles = tables.judged_titles(Path(config.title_similarity)) if config.title_similarity else None
        self.sample = Sample.of(dataset, self.data, config.seed)

    def __call__(self, model: SentenceTransformer) -> "Measured":
        """The figures of one encoder, and the vectors of the report's sample."""
        model.eval()
        wanted = np.unique(np.r_[self.data.texts(), self.sample.document_M, self.sample.query_Q])
        vector_TD = vectors(model, self.texts, wanted)
        figures = quality.measure(self.data, vector_TD)
        if self.titles:
            precision = backends.native_precision(model.device)
            query_QD = backends.encode_texts(model, self.titles.queries, precision)
            title_MD = backends.encode_texts(model, self.titles.titles, precision)
            figures["title_map"] = quality.title_map(query_QD, title_MD, self.titles.relevant_QM)
        return Measured(figures, vector_TD[self.sample.query_Q], vector_TD[self.sample.document_M])


@dataclass(frozen=True)
class Measured:
    """Figures of an encoder; vectors of the sample's queries (Q, D) and documents (M, D)."""

    figures: dict[str, float]
    query_QD: Floats
    document_MD: Floats


@dataclass(frozen=True)
class Sample:
    """What the report shows: documents of frequent occupations, and frequent queries, by text number."""

    document_M: npt.NDArray[np.int64]
    group_M: list[str]
    query_Q: npt.NDArray[np.int64]

    @staticmethod
    def of(
        dataset: Path, data: quality.HeldOut, seed: int, groups: int = 8, documents: int = 400, queries: int = 12
    ) -> "Sample":
        """Draw up to `documents` of the `groups` most frequent occupations, and the most frequent held-out queries."""
        jobs = pq.read_table(dataset / "jobs.parquet", columns=["document_text", "occupation", "title"]).to_pydict()
        occupation = dict(zip(jobs["document_text"], jobs["occupation"], strict=True))
        known = Counter(occupation[int(d)] for d in data.document_M if occupation.get(int(d)))
        frequent = {name for name, _ in known.most_common(groups)}
        pool = [int(d) for d in data.document_M if not frequent or occupation.get(int(d)) in frequent]
        chosen = np.random.default_rng(seed).permutation(pool)[:documents].astype(np.int64)
        asked = Counter(data.shown.query_N.tolist()).most_common(queries)
        called = _names(jobs["occupation"], jobs["title"], frequent)
        labels = [called.get(occupation.get(int(d)) or "", "documents") for d in chosen]
        return Sample(chosen, labels, np.asarray([query for query, _ in asked], np.int64))


def _names(occupations: list[str | None], titles: list[str], wanted: set[str | None]) -> dict[str, str]:
    """What a reader calls an occupation: its name, or where the log has a code (it holds a digit) its most frequent title."""
    of: dict[str, Counter[str]] = {name: Counter() for name in wanted if name}
    for name, title in zip(occupations, titles, strict=True):
        if name in of:
            of[name][title] += 1
    is_code = {name: any(character.isdigit() for character in name) for name in of}
    return {name: min(found, key=lambda t: (-found[t], t)) if is_code[name] else name for name, found in of.items()}


def verdict(before: dict[str, float], after: dict[str, float], max_title_loss: float) -> tuple[bool, str]:
    """Whether the new encoder replaces the old one, and why.

    It must be no worse by any of `DECIDING`, and lose at most `max_title_loss` of `title_map`. One measure alone, on a few
    hundred searches, can rise by chance while the encoder forgets what its words mean.
    """
    names = {name: title for name, (title, _) in report.MEASURES.items()}
    worse = [f"{names[name]} {after[name] - before[name]:+.4f}" for name in DECIDING if after[name] < before[name]]
    if worse:
        return False, f"Kept the base encoder: the fine-tuned one ranks held-out searches worse ({'; '.join(worse)})"
    loss = before.get("title_map", 0.0) - after.get("title_map", 0.0)
    if loss > max_title_loss:
        return (
            False,
            f"Kept the base encoder: the fine-tuned one is worse at similar titles ({names['title_map']} {-loss:+.4f})",
        )
    change = after["map_shown"] - before["map_shown"]
    return True, f"Kept the fine-tuned encoder: it ranks held-out searches no worse ({names['map_shown']} {change:+.4f})"


def page(judge: Judge, before: Measured, after: Measured, training_facts: dict[str, Any], config: FinetuneConfig) -> str:
    """The HTML report of one fine-tuning."""
    accepted, words = verdict(before.figures, after.figures, config.max_title_loss)
    sample, texts = judge.sample, judge.texts
    queries, documents = [texts[i] for i in sample.query_Q], [texts[i] for i in sample.document_M]
    sides = (before.query_QD, before.document_MD), (after.query_QD, after.document_MD)
    whole = report.whole({
        **training_facts,
        "accepted": accepted,
        "verdict": words,
        "before": before.figures,
        "after": after.figures,
        "requests": len(np.unique(judge.data.shown.request_N)),
        "randomised": judge.randomised,
        "documents": len(judge.data.document_M),
        "loss_plot": report.loss_plot(training_facts["losses"]),
        "map_plots": report.map_plots(before.document_MD, after.document_MD, sample.group_M),
        "neighbours": report.neighbours(queries, documents, *sides),
    })  # fmt: skip
    return html(whole)
