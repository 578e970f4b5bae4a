"""How well an encoder's cosines rank what users clicked, on searches it was not trained on.

Legend: N impressions, R requests, M documents to search among, T texts, D dimension. Vectors are L2-normalised.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score

from tritower.encoder.triplets import Shown
from tritower.metrics.auc import auc

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class HeldOut:
    """Searches to measure on, each with a click and something passed over, and the documents of the wider search."""

    shown: Shown
    document_M: Ints

    def texts(self) -> Ints:
        """The numbers of the texts whose vectors `measure` reads, ascending."""
        return np.unique(np.r_[self.shown.query_N, self.shown.document_N, self.document_M])


def held_out(shown: Shown, documents: Ints, *, requests: int, jobs: int, empty_query: int, seed: int) -> HeldOut:
    """Draw `requests` searches with at least one click and one pass, and about `jobs` documents that hold all clicked ones.

    Args:
        documents: text numbers of all jobs' documents.
        empty_query: text number of the empty text, whose searches are left out; -1 where there is none.
    """
    random = np.random.default_rng(seed)
    _, row_R, inverse_N = np.unique(shown.request_N, return_index=True, return_inverse=True)
    share_R = np.bincount(inverse_N, shown.clicked_N) / np.bincount(inverse_N)
    usable = np.flatnonzero((share_R > 0) & (share_R < 1) & (shown.query_N[row_R] != empty_query))
    chosen = random.permutation(usable)[:requests]
    rows = np.flatnonzero(np.isin(inverse_N, chosen))
    kept = Shown(*(getattr(shown, name)[rows] for name in Shown.__dataclass_fields__))
    clicked = np.unique(kept.document_N[kept.clicked_N])
    others = random.permutation(np.setdiff1d(documents, clicked))[: max(0, jobs - len(clicked))]
    return HeldOut(kept, np.union1d(clicked, others))


def measure(data: HeldOut, vector_TD: Floats) -> dict[str, float]:
    """Figures of one encoder, all between 0 and 1, higher is better.

    Args:
        vector_TD: by text number; only the rows of `data.texts()` are read.

    Returns:
        triplet_accuracy: share of (query, clicked, passed over) with the clicked document nearer (ties count half).
        auc_shown: area under the ROC curve of the cosine over all rows shown.
        map_shown: mean average precision of the clicked among those shown for the same search.
        map_jobs, recall@10_jobs: the same, and the share found in the first ten, among `document_M`.
    """
    shown = data.shown
    cosine_N = np.einsum("nd,nd->n", vector_TD[shown.query_N], vector_TD[shown.document_N])
    edges = np.flatnonzero(np.diff(shown.request_N)) + 1
    accuracy, precision_shown, precision_jobs, recall_jobs = [], [], [], []
    document_MD = vector_TD[data.document_M]
    for rows in np.split(np.arange(len(shown.request_N)), edges):
        clicked = shown.clicked_N[rows]
        accuracy.append(auc(cosine_N[rows], clicked))
        precision_shown.append(average_precision_score(clicked, cosine_N[rows]))
        wanted_M = np.isin(data.document_M, shown.document_N[rows][clicked])
        cosine_M = document_MD @ vector_TD[shown.query_N[rows[0]]]
        precision_jobs.append(average_precision_score(wanted_M, cosine_M))
        recall_jobs.append(wanted_M[np.argsort(-cosine_M, kind="stable")[:10]].sum() / wanted_M.sum())
    return {
        "triplet_accuracy": float(np.mean(accuracy)),
        "auc_shown": auc(cosine_N, shown.clicked_N),
        "map_shown": float(np.mean(precision_shown)),
        "map_jobs": float(np.mean(precision_jobs)),
        "recall@10_jobs": float(np.mean(recall_jobs)),
    }


def title_map(query_QD: Floats, title_MD: Floats, relevant_QM: npt.NDArray[np.bool_]) -> float:
    """Mean average precision of ranking all titles by cosine to each query, over queries with a relevant title."""
    cosine_QM = query_QD @ title_MD.T
    values = [average_precision_score(r, c) for r, c in zip(relevant_QM, cosine_QM, strict=True) if r.any()]
    return float(np.mean(values))
