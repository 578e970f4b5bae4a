"""Principal components of query, document, product and description embeddings, as extra columns for trees.

Trees cannot take an inner product of 384 columns; a few components of the two vectors and of their elementwise product
(whose sum is the cosine) give them the same information as the towers, as far as trees can use it; so do those of the
description.

Legend: T texts, D embedding width, C components, N rows.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.floating]
Numbers = npt.NDArray[np.integer]


@dataclass(frozen=True, kw_only=True)
class Projection:
    """Centred linear maps D -> C: of queries, documents, their products and descriptions (C = 0 where there are none)."""

    query_mean_D: Matrix
    query_DC: Matrix
    document_mean_D: Matrix
    document_DC: Matrix
    product_mean_D: Matrix
    product_DC: Matrix
    description_mean_D: Matrix
    description_DC: Matrix

    def names(self) -> list[str]:
        """Column names in the order of `columns`."""
        kinds = ("query", "document", "product", "description")
        return [f"pca_{kind}_{i}" for kind in kinds for i in range(getattr(self, f"{kind}_DC").shape[1])]

    def columns(
        self, matrix_TD: Matrix, query_text_N: Numbers, document_text_N: Numbers, description_text_N: Numbers
    ) -> npt.NDArray[np.float32]:
        """(N, 3C or 4C) float32; each distinct text of the batch is projected once. A description of -1 is missing: NaN."""
        parts = []
        gathered = []
        for text_N, mean_D, map_DC in (
            (query_text_N, self.query_mean_D, self.query_DC),
            (document_text_N, self.document_mean_D, self.document_DC),
        ):
            unique, inverse = np.unique(text_N, return_inverse=True)
            vector = np.asarray(matrix_TD[unique], dtype=np.float32)
            parts.append(((vector - mean_D) @ map_DC)[inverse])
            gathered.append((vector, inverse))
        (query, query_at), (document, document_at) = gathered
        product = np.empty((len(query_text_N), self.product_DC.shape[1]), dtype=np.float32)
        for start in range(0, len(product), 16_384):  # bounds the (N, D) products held at once
            rows = slice(start, start + 16_384)
            product[rows] = (query[query_at[rows]] * document[document_at[rows]] - self.product_mean_D) @ self.product_DC
        unique, inverse = np.unique(description_text_N, return_inverse=True)
        described = (np.asarray(matrix_TD[np.maximum(unique, 0)], np.float32) - self.description_mean_D) @ self.description_DC
        described[unique < 0] = np.nan
        return np.concatenate([*parts, product, described[inverse]], axis=1, dtype=np.float32)


def fit(
    matrix_TD: Matrix,
    query_text_N: Numbers,
    document_text_N: Numbers,
    description_text_N: Numbers,
    *,
    components: int,
    limit: int,
    seed: int,
) -> Projection:
    """Fit the maps on training rows.

    Args:
        query_text_N: text numbers of a sample of training rows, with `document_text_N` and `description_text_N` (-1 = none)
            beside it.
        components: C, capped at D.
        limit: most texts, and most pairs, used.
    """
    rng = np.random.default_rng(seed)

    def sample(values: Numbers) -> Numbers:
        return values if len(values) <= limit else np.sort(rng.choice(values, limit, replace=False))

    def vectors(texts: Numbers) -> Matrix:
        return np.asarray(matrix_TD[texts], dtype=np.float32)

    count = min(components, matrix_TD.shape[1])
    query_mean_D, query_DC = _principal(vectors(sample(np.unique(query_text_N))), count)
    document_mean_D, document_DC = _principal(vectors(sample(np.unique(document_text_N))), count)
    pair = sample(np.arange(len(query_text_N)))
    product = vectors(query_text_N[pair]) * vectors(document_text_N[pair])
    product_mean_D, product_DC = _principal(product, count)
    text = np.unique(description_text_N)
    text = sample(text[text >= 0])
    described = vectors(text) if len(text) else np.zeros((1, matrix_TD.shape[1]), np.float32)
    description_mean_D, description_DC = _principal(described, count if len(text) else 0)
    return Projection(
        query_mean_D=query_mean_D,
        query_DC=query_DC,
        document_mean_D=document_mean_D,
        document_DC=document_DC,
        product_mean_D=product_mean_D,
        product_DC=product_DC,
        description_mean_D=description_mean_D,
        description_DC=description_DC,
    )


def _principal(vector_ND: Matrix, count: int) -> tuple[Matrix, Matrix]:
    """Mean (D,) and the `count` leading principal directions (D, C)."""
    mean_D = vector_ND.mean(axis=0)
    centred = vector_ND - mean_D
    _, directions = np.linalg.eigh((centred.T @ centred).astype(np.float64))  # ascending eigenvalues
    return mean_D.astype(np.float32), np.ascontiguousarray(directions[:, ::-1][:, :count]).astype(np.float32)
