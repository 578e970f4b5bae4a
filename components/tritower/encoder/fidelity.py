"""How near the vectors of a fast backend come to those of the model in fp32.

Legend: S texts of the sample, D dimension.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def compare(vector_SD: Floats, reference_SD: Floats, top: int = 10) -> dict[str, float]:
    """Figures of a sample, both sides L2-normalised.

    Returns:
        cosine_min, cosine_mean: between each vector and its reference, 1 is equal.
        top10_overlap: share of each text's ten nearest others that both sides agree on; 1 where the sample holds too few.
    """
    cosine_S = np.einsum("sd,sd->s", vector_SD.astype(np.float64), reference_SD.astype(np.float64))
    norm_S = np.linalg.norm(vector_SD.astype(np.float64), axis=1) * np.linalg.norm(reference_SD.astype(np.float64), axis=1)
    cosine_S /= np.maximum(norm_S, 1e-12)
    overlap = 1.0
    if len(vector_SD) > top + 1:
        first, second = (_nearest(side, top) for side in (vector_SD, reference_SD))
        overlap = float(np.mean([len(np.intersect1d(a, b)) / top for a, b in zip(first, second, strict=True)]))
    return {
        "cosine_min": float(cosine_S.min(initial=1.0)),
        "cosine_mean": float(cosine_S.mean()),
        "top10_overlap": overlap,
    }


def _nearest(vector_SD: Floats, top: int) -> npt.NDArray[np.int64]:
    cosine_SS = vector_SD @ vector_SD.T
    np.fill_diagonal(cosine_SS, -np.inf)
    nearest: npt.NDArray[np.int64] = np.argpartition(-cosine_SS, top, axis=1)[:, :top]
    return nearest
