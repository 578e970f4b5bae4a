"""The error browser: the searches where two rankers differ most, with what each put on top."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tritower.evaluation.rows import Rows
from tritower.metrics import ranking

TOP = 5


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """One search: its number, nDCG@10 of both rankers, and the rows each ranks first, best first."""

    request: int
    ours: float
    theirs: float
    ours_top: tuple[int, ...]
    theirs_top: tuple[int, ...]


def widest(rows: Rows, ranker: str, rival: str, *, most: int, seed: int) -> tuple[list[Disagreement], list[Disagreement]]:
    """The `most` searches where `ranker` gains most nDCG@10 over `rival`, and those where it loses most.

    Each query appears once per list; searches that both rank alike are left out.
    """
    where = ranking.requests(rows.request, rows.clicked)
    gain = {
        name: ranking.per_request(rows.score[name], rows.clicked, rows.row, where, seed=seed).ndcg10_Q
        for name in (ranker, rival)
    }
    difference = gain[ranker] - gain[rival]

    def chosen(order: npt.NDArray[np.int64], sign: int) -> list[Disagreement]:
        found: list[Disagreement] = []
        queries: set[int] = set()
        for q in order:
            start, stop = int(where.start_Q[q]), int(where.stop_Q[q])
            query = int(rows.query_text[start])
            if len(found) == most or difference[q] * sign <= 0:
                break
            if query in queries:
                continue
            queries.add(query)
            found.append(
                Disagreement(
                    request=int(rows.request[start]),
                    ours=float(gain[ranker][q]),
                    theirs=float(gain[rival][q]),
                    ours_top=_top(rows, ranker, start, stop, seed),
                    theirs_top=_top(rows, rival, start, stop, seed),
                )
            )
        return found

    order = np.argsort(-difference, kind="stable")
    return chosen(order, 1), chosen(order[::-1], -1)


def _top(rows: Rows, ranker: str, start: int, stop: int, seed: int) -> tuple[int, ...]:
    shuffled = np.random.default_rng([seed, start]).permutation(stop - start)  # ties by chance, as in the metrics
    order = shuffled[np.argsort(-rows.score[ranker][start:stop][shuffled], kind="stable")]
    return tuple(int(start + i) for i in order[:TOP])
