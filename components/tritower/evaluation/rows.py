"""The rows that are judged, as parallel arrays.

Legend: N rows, P positions (index 0 stands for an unknown one).
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Test impressions in row order, each request's rows together, with every ranker's score beside them."""

    row: npt.NDArray[np.int64]
    request: npt.NDArray[np.int64]
    user: npt.NDArray[np.int32]
    job: npt.NDArray[np.int32]
    query_text: npt.NDArray[np.int32]
    position: npt.NDArray[np.int16]
    clicked: npt.NDArray[np.bool_]
    randomised: npt.NDArray[np.bool_]
    score: dict[str, npt.NDArray[np.float32]]

    def __len__(self) -> int:
        return len(self.row)

    def take(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> "Rows":
        """The chosen rows."""
        arrays = {name: value[chosen] for name, value in vars(self).items() if name != "score"}
        return Rows(**arrays, score={name: score[chosen] for name, score in self.score.items()})

    def with_score(self, name: str, score_N: npt.NDArray[np.float32]) -> "Rows":
        """The same rows with one more ranker."""
        return replace(self, score={**self.score, name: score_N})

    def redrawn(self, ranker: str, seed: int) -> "Rows":
        """The same rows with clicks drawn anew from `ranker`'s probabilities, every job examined; positions forgotten."""
        draw_N = np.random.default_rng(seed).random(len(self), dtype=np.float32)
        return replace(self, clicked=draw_N < self.score[ranker], position=np.zeros_like(self.position))
