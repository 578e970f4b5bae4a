"""What a reader looks at: some searches with their ranked jobs. Nobody's id is shown."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tritower.drawable import printable
from tritower.pages import page

SEARCHES = 20
"""Searches of the page, evenly spaced among all: it is to be looked through, not to hold them all."""
JOBS = 50
"""Jobs of a search at most, so that the page stays small whatever `top_k` is."""


def html(top: pa.Table, counts: Mapping[str, int]) -> str:
    """The page of a run.

    Args:
        top: rows of `schema.RECOMMENDATIONS`, by request and rank.
        counts: searches and recommendations, and searches without any.
    """
    chosen = _evenly(pc.unique(top["request"]).to_pylist(), SEARCHES)
    rows = top.filter(pc.is_in(top["request"], pa.array(chosen, top.schema.field("request").type))).to_pylist()
    blocks: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        blocks.setdefault(row["request"], []).append(row)
    folds = [_search(block, is_open=number < 2) for number, block in enumerate(blocks.values())]
    without = f"; {counts['without']:,} searches get none" if counts["without"] else ""
    shown = "Every search" if len(folds) == counts["searches"] else f"{len(folds)} of the searches, evenly spaced"
    return page.html(
        page.Page(
            name="Recommendations",
            verdict=f"{counts['recommendations']:,} jobs recommended for {counts['searches']:,} searches{without}",
            tone="" if folds else "bad",
            lines=[
                f"{shown}, with the jobs as ranked. The figure behind a job is the probability of a click at the top of a page."
            ],
            sections=[page.Section(title="Searches", blocks=folds or [page.Items(items=[])], is_open=True)],
        )
    )


def _search(rows: Sequence[Mapping[str, Any]], *, is_open: bool) -> page.Fold:
    first = rows[0]
    place = _place(first["request_city"], first["request_region"])
    jobs = [
        page.Item(
            text=printable(row["title"], 120),
            note=", ".join(part for part in (printable(row["company"], 80), _place(row["city"], row["region"])) if part)
            + f" · {row['score']:.1%}",
        )
        for row in rows[:JOBS]
    ]
    title = (printable(first["query"], 120) or "(no words)") + (f" in {place}" if place else "")
    return page.Fold(title=title, note=f"{first['ts']:%Y-%m-%d %H:%M} UTC", blocks=[page.Items(items=jobs)], is_open=is_open)


def _place(city: str | None, region: str | None) -> str:
    return ", ".join(printable(part, 60) for part in (city, region) if part)


def _evenly(requests: list[int], most: int) -> list[int]:
    """`most` of the requests, evenly spaced, first and last among them; all of them if fewer."""
    if len(requests) <= most:
        return requests
    return [requests[at] for at in np.linspace(0, len(requests) - 1, most).round().astype(int)]
