"""Principal components of query, document, product and description embeddings, as extra columns for trees.

Trees cannot take an inner product of 384 columns; a few components of the two vectors and of their elementwise product
(whose sum is the cosine) give them the same information as the towers, as far as trees can use it; so do those of the
description.

All of it is exact arithmetic (`exact`): half-precision vectors are multiples of 2^-24, the maps are kept as multiples of 2^-22,
so no sum of their products is rounded, and the columns are equal to the bit on every machine.

Legend: T texts, D embedding width, C components, N rows.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tritower.baseline import exact
from tritower.errors import ArtifactError

_VECTOR_BITS, _MAP_BITS = 24, 22

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
        query, query_at = _gathered(matrix_TD, query_text_N)
        document, document_at = _gathered(matrix_TD, document_text_N)
        about, about_at = _gathered(matrix_TD, np.maximum(description_text_N, 0))
        parts = [
            _mapped(query, self.query_mean_D, self.query_DC)[query_at],
            _mapped(document, self.document_mean_D, self.document_DC)[document_at],
            np.empty((len(query_text_N), self.product_DC.shape[1])),
            _mapped(about, self.description_mean_D, self.description_DC)[about_at],
        ]
        for start in range(0, len(query_text_N), 8_192):  # bounds the (N, D) products held at once
            rows = slice(start, start + 8_192)
            parts[2][rows] = _mapped(query[query_at[rows]] * document[document_at[rows]], self.product_mean_D, self.product_DC)
        parts[3][description_text_N < 0] = np.nan
        return np.concatenate(parts, axis=1, dtype=np.float32, casting="same_kind")


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
        return np.asarray(matrix_TD[texts], dtype=np.float32)  # their products have 22 bits, float32 holds 24

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


def _gathered(matrix_TD: Matrix, text_N: Numbers) -> tuple[exact.Floats, Numbers]:
    """The vector of each distinct text, and where each row's text is among them."""
    unique, at_N = np.unique(text_N, return_inverse=True)
    return np.asarray(matrix_TD[unique], dtype=np.float64), at_N


def _principal(vector_ND: Matrix, count: int) -> tuple[Matrix, Matrix]:
    """Mean (D,) and the `count` leading principal directions (D, C)."""
    mean_D = exact.fixed(exact.mean(vector_ND), _VECTOR_BITS)
    if not count:
        return mean_D, np.zeros((len(mean_D), 0))
    return mean_D, exact.fixed(exact.principal(exact.moments(vector_ND, mean_D), count), _MAP_BITS)


def _mapped(vector_ND: exact.Floats, mean_D: Matrix, map_DC: Matrix) -> exact.Floats:
    """(vector - mean) @ map; the difference of two exact sums."""
    largest = float(max(np.abs(vector_ND).max(initial=0.0), np.abs(mean_D).max()))
    if not largest * np.abs(map_DC).sum(axis=0).max(initial=0.0) <= 2.0 ** (53 - _VECTOR_BITS - _MAP_BITS):
        raise ArtifactError(
            "the embeddings are not finite vectors of about unit length",
            where=f"largest value {largest:g}",
            remedy="Embed this dataset again.",
        )
    return exact.fixed(vector_ND, _VECTOR_BITS) @ map_DC - mean_D @ map_DC
