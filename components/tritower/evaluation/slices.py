"""Which kinds of search the rankers are judged on separately.

A slice is a set of whole searches, so that a ranking within it means something.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tritower.evaluation.config import EvaluationConfig
from tritower.evaluation.rows import Rows

Mask = npt.NDArray[np.bool_]
MIN_CLICKED = 30
"""Fewest searches with a click in a slice: below it an interval says nothing."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What is known of searches and jobs besides the rows; R requests, J jobs, T texts of the dataset.

    `known_R`: the user searched before. `shown_J`: impressions before the test period. `searched_T`: requests with that
    query before the test period. `city_R`, `region_R`, `city_J`: dense place numbers, -1 unknown; cities of requests and jobs
    share their numbers. `regions`: the names of the region numbers.
    """

    known_R: Mask
    shown_J: npt.NDArray[np.int64]
    searched_T: npt.NDArray[np.int64]
    city_R: npt.NDArray[np.int64]
    region_R: npt.NDArray[np.int64]
    city_J: npt.NDArray[np.int64]
    regions: tuple[str, ...]


def slices(rows: Rows, context: Context, config: EvaluationConfig) -> dict[str, Mask]:
    """Name -> rows, for every slice with enough searches with a click.

    "Clicked" slices hold the searches all of whose clicks were on such jobs.
    """
    known = context.known_R[rows.request]
    cold = context.shown_J[rows.job] < config.cold_job_impressions
    rare = context.searched_T[rows.query_text] < config.rare_query_requests
    city = context.city_R[rows.request]
    local = (city == context.city_J[rows.job]) & (city >= 0)
    placed = city >= 0
    masks = {
        "returning users": known,
        "new users (first search)": ~known,
        f"rare queries (fewer than {config.rare_query_requests} searches before)": rare,
        "frequent queries": ~rare,
        f"cold jobs clicked (shown fewer than {config.cold_job_impressions} times before)": _all_clicks(rows, cold),
        "warm jobs clicked": _all_clicks(rows, ~cold),
        "clicked in the searched city": _all_clicks(rows, local),
        "clicked elsewhere": placed & _all_clicks(rows, ~local),
    }
    for number in _largest(context.region_R[rows.request], config.regions):
        masks[f"searched in {context.regions[number]}"] = context.region_R[rows.request] == number
    return {name: mask for name, mask in masks.items() if len(np.unique(rows.request[mask & rows.clicked])) >= MIN_CLICKED}


def _all_clicks(rows: Rows, chosen: Mask) -> Mask:
    """Rows of the requests that have clicks, all of them on chosen rows."""
    numbers, inverse = np.unique(rows.request, return_inverse=True)
    clicks = np.bincount(inverse, weights=rows.clicked, minlength=len(numbers))
    within = np.bincount(inverse, weights=rows.clicked & chosen, minlength=len(numbers))
    mask: Mask = ((clicks > 0) & (clicks == within))[inverse]
    return mask


def _largest(region_N: npt.NDArray[np.int64], most: int) -> list[int]:
    counts = np.bincount(region_N[region_N >= 0]) if (region_N >= 0).any() else np.empty(0, np.int64)
    order = np.argsort(-counts, kind="stable")[:most]
    return [int(number) for number in order if counts[number] > 0]
