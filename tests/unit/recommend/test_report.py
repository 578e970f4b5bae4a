"""The page of recommendations: twenty searches, their jobs as ranked, nobody's id, no text that is markup."""

import datetime as dt
import re
from itertools import pairwise

import pyarrow as pa
import pytest
from tritower import schema
from tritower.recommend import report


def top(searches: int, jobs: int = 3, **changed: object) -> pa.Table:
    """Rows of `schema.RECOMMENDATIONS`; request numbers have gaps."""
    ts = dt.datetime(2026, 1, 31, 9, 5, tzinfo=dt.UTC)
    return pa.Table.from_pylist(
        [
            {
                **{
                    "request": 7 * search,
                    "request_id": f"request-{search}",
                    "user_id": "secret-user",
                    "query": f"query {search}",
                },
                **{"request_city": "Berlin", "request_region": None, "ts": ts, "rank": rank + 1, "job_id": f"job-{rank}"},
                **{"title": f"Title {rank}", "company": "Acme", "city": None, "region": "BE", "score": 0.5 / (rank + 1)},
                **changed,
            }
            for search in range(searches)
            for rank in range(jobs)
        ],
        schema=schema.RECOMMENDATIONS.arrow(),
    )


@pytest.mark.parametrize("searches", [1, 20, 39, 500])
def test_twenty_searches_evenly_spaced(searches: int) -> None:
    html = report.html(top(searches), {"searches": searches, "recommendations": 3 * searches, "without": 4})
    found = [int(number) for number in re.findall(r"<summary><bdi>query (\d+) in Berlin</bdi>", html)]
    assert len(found) == min(searches, 20) and found[0] == 0 and found[-1] == searches - 1
    steps = {after - before for before, after in pairwise(found)}
    assert not steps or max(steps) - min(steps) <= 1
    assert f"{3 * searches:,} jobs recommended for {searches:,} searches; 4 searches get none" in html


def test_jobs_stand_as_ranked_with_place_and_probability() -> None:
    html = report.html(top(2), {"searches": 2, "recommendations": 6, "without": 0})
    first = html.split("<summary><bdi>query 0")[1].split("</details>")[0]
    assert re.findall(r"<li><bdi>([^<]*)</bdi><small><bdi>([^<]*)</bdi></small></li>", first) == [
        *(("Title 0", "Acme, BE · 50.0%"), ("Title 1", "Acme, BE · 25.0%"), ("Title 2", "Acme, BE · 16.7%")),
    ]
    assert "2026-01-31 09:05 UTC" in first
    assert not re.search("secret-user|request-0|job-0", html)


@pytest.mark.parametrize("column", ["query", "title", "company", "request_city", "region"])
def test_no_text_is_markup(column: str) -> None:
    html = report.html(top(1, **{column: "<script>x</script><b>\x1b[31m"}), {"searches": 1, "recommendations": 3, "without": 0})
    assert "<script" not in html and "<b>" not in html and "\x1b" not in html
    assert "&lt;script&gt;x&lt;/script&gt;&lt;b&gt;" in html


def test_no_search_at_all() -> None:
    html = report.html(top(0), {"searches": 0, "recommendations": 0, "without": 3})
    assert ">none</p>" in html and '<h1 class="bad">' in html and "3 searches get none" in html
