"""Random catalogues and clicks, and retrieval by brute force: every list by its definition, in float64, job by job."""

import datetime as dt
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from sklearn.feature_extraction.text import TfidfVectorizer
from tritower.recommend.clicks import Clicks
from tritower.recommend.index import Index
from tritower.recommend.retrieve import Search, fuse

_SOME = "nurse night driver truck senior java developer cook shift warehouse clerk sales lead care home remote"
WORDS = _SOME.split()
CITIES, REGIONS = ["Austin", "Dallas", "austin ", "Paris", None, ""], ["TX", "IdF", None]
NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


@dataclass
class Board:
    """A catalogue and its clicks: (user, job, query number, microseconds)."""

    jobs: pa.Table
    documents: list[str]
    text_J: np.ndarray
    matrix_TD: np.ndarray
    texts: list[str]
    queries: int
    clicks: list[tuple[str, int, int, int]]

    def index(self) -> Index:
        return Index.build(self.jobs, self.documents, self.matrix_TD, self.text_J)

    def log(self, clicks: Sequence[tuple[str, int, int, int]] | None = None) -> Clicks:
        user, job, query, when = zip(*(self.clicks if clicks is None else clicks), strict=True)
        return Clicks.build(
            user_E=pa.array(user), job_E=np.array(job), query_text_E=np.array(query), clicked_us_E=np.array(when),
            text_T=pa.array(self.texts), matrix_TD=self.matrix_TD,
        )  # fmt: skip


def us(moment: dt.datetime) -> int:
    return int(moment.timestamp() * 1_000_000)


def board(seed: int, *, jobs: int = 120, queries: int = 70, clicks: int = 300, dim: int = 24) -> Board:
    """Titles of a few words, so that documents repeat; a text's vector is the sum of its words', with some noise."""
    rng = np.random.default_rng(seed)
    of_word = {word: rng.normal(size=dim) for word in WORDS}
    titles = [" ".join(rng.choice(WORDS, size=rng.integers(1, 4))) for _ in range(jobs)]
    companies = [f"{rng.choice(['Acme', 'ACME ', 'Globex', 'Haul Co'])}" for _ in range(jobs)]
    documents = [f"{title}, {company}" for title, company in zip(titles, companies, strict=True)]
    asked = ["", *dict.fromkeys(" ".join(rng.choice(WORDS, size=rng.integers(1, 3))) for _ in range(2 * queries))][:queries]
    texts = [*asked, *dict.fromkeys(documents)]
    vectors = [
        sum((of_word.get(w.strip(","), np.zeros(dim)) for w in text.split()), rng.normal(size=dim) * 0.3) for text in texts
    ]
    matrix_TD = np.array([vector / np.linalg.norm(vector) for vector in vectors]).astype(np.float16)
    ids = [f"job-{number:04d}" for number in rng.permutation(jobs)]
    days = rng.integers(-60, 5, size=jobs)
    table = pa.table({
        "job_id": ids, "title": titles, "company": companies,
        "city": pa.array(list(rng.choice(np.array(CITIES, object), size=jobs)), pa.string()),
        "region": pa.array(list(rng.choice(np.array(REGIONS, object), size=jobs)), pa.string()),
        "country": pa.array(["US" if n % 3 else None for n in range(jobs)], pa.string()),
        "posted_at": pa.array([None if n % 9 == 0 else NOW + dt.timedelta(days=int(day)) for n, day in enumerate(days)],
                              pa.timestamp("us", tz="UTC")),
        "expires_at": pa.array([NOW + dt.timedelta(days=int(day) + 50) if n % 3 == 0 else None for n, day in enumerate(days)],
                               pa.timestamp("us", tz="UTC")),
    })  # fmt: skip
    made = [
        (
            f"user-{rng.integers(12)}",
            int(rng.integers(jobs)),
            int(rng.integers(queries)),
            us(NOW) + int(rng.integers(-900, 300)),
        )
        for _ in range(clicks)
    ]
    return Board(table, documents, np.array([texts.index(one) for one in documents]), matrix_TD, texts, queries, made)


def searches(given: Board, seed: int, count: int, **more: object) -> list[Search]:
    """Searches of every sort: with and without query, profile, history and place."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        query = int(rng.integers(given.queries)) if rng.random() < 0.6 else 0
        out.append(
            Search(
                ts_us=us(NOW) + int(rng.integers(-900, 300)), query=given.texts[query],
                query_D=given.matrix_TD[query] if given.texts[query] else None,
                profile_XD=given.matrix_TD[rng.integers(0, len(given.matrix_TD), size=int(rng.integers(3)))],
                user_id=f"user-{rng.integers(24)}", city=rng.choice(np.array(CITIES, object)),
                region=rng.choice(np.array(REGIONS, object)), **more,
            )
        )  # fmt: skip
    return out


def lists(given: Board, search: Search, limit: int) -> dict[str, list[int]]:
    """Each list by its definition: places in the order of job ids."""
    jobs, matrix = given.jobs.to_pylist(), given.matrix_TD.astype(np.float64)
    order = np.argsort(np.argsort([job["job_id"] for job in jobs]))
    wanted = search.conditions
    rows = [j for j, job in enumerate(jobs) if _is_open(job, search.ts_us) and _passes(job, wanted, j)]
    earlier = [click for click in given.clicks if click[3] < search.ts_us]
    query = None if search.query_D is None else search.query_D.astype(np.float64)
    profile = _mean(search.profile_XD.astype(np.float64))
    history = _mean(matrix[[given.text_J[job] for user, job, *_ in earlier if user == search.user_id]])
    known = [vector for vector in (query, profile, history) if vector is not None]
    city = [j for j in rows if _same_city(jobs[j], search)]
    region = [j for j in rows if _plain(search.region) and _plain(jobs[j]["region"]) == _plain(search.region)]

    def best(among: list[int], score: dict[int, float]) -> list[int]:
        return [int(order[j]) for j in sorted(among, key=lambda j: (-score[j], order[j]))][:limit]

    def near(among: list[int], vector: np.ndarray) -> list[int]:
        return best(among, {j: float(np.float32(matrix[given.text_J[j]] @ vector)) for j in among})

    out: dict[str, list[int]] = {}
    if not known:
        newest = {j: _days(jobs[j]) + 4_000_000 * (j in city) for j in rows}
        out["newest"] = best(rows, newest)
    else:
        out = {"city": near(city, known[0]), "region": near(region, known[0])}
        out["near"] = near(region, known[0] if history is None else history)
        out |= {
            name: near(rows, one)
            for name, one in (("query", query), ("profile", profile), ("history", history))
            if one is not None
        }
    if search.query:
        tfidf, document_JV = _tfidf(tuple(given.documents))
        score = (tfidf.transform([search.query]) @ document_JV.T).toarray()[0]
        out["lexical"] = best([j for j in rows if score[j] > 0], {j: float(score[j]) for j in rows})
    if query is not None:
        out["clicked"] = _clicked(given, earlier, query, rows, order)[:limit]
    return out


def fused(found: dict[str, list[int]], limit: int) -> list[int]:
    return fuse([np.array(one, np.int64) for one in found.values()], limit).tolist()


@functools.cache
def _tfidf(documents: tuple[str, ...]) -> tuple:
    tfidf = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
    return tfidf, tfidf.fit_transform(documents)


def _clicked(given: Board, earlier: list, query: np.ndarray, rows: list[int], order: np.ndarray) -> list[int]:
    asked = {number for *_, number, _ in earlier if given.texts[number]}
    cosine = {n: float(np.float32(given.matrix_TD[n].astype(np.float64) @ query)) for n in asked}
    nearest = sorted(asked, key=lambda n: (-cosine[n], given.texts[n]))[:50]
    votes: dict[int, list[float]] = {}
    for _, job, number, _ in earlier:
        if number in nearest and cosine[number] > 0:
            votes.setdefault(job, []).append(cosine[number] ** 4)
    return [int(order[j]) for j in sorted(votes, key=lambda j: (-math.fsum(votes[j]), order[j])) if j in set(rows)]


def _mean(vectors: np.ndarray) -> np.ndarray | None:
    if not len(vectors):
        return None
    mean = vectors.sum(axis=0)
    return (mean / np.linalg.norm(mean)).astype(np.float16).astype(np.float64)


def _is_open(job: dict, ts_us: int) -> bool:
    posted, expires = (None if job[name] is None else us(job[name]) for name in ("posted_at", "expires_at"))
    return (posted is None or posted <= ts_us) and (expires is None or ts_us < expires)


def _passes(job: dict, wanted, number: int) -> bool:
    places = (("city", wanted.city), ("region", wanted.region), ("country", wanted.country))
    return (
        all(name is None or (_plain(name) and _plain(job[what]) == _plain(name)) for what, name in places)
        and (wanted.posted_since is None or (job["posted_at"] is not None and us(job["posted_at"]) >= wanted.posted_since))
        and _plain(job["company"]) not in {_plain(name) for name in wanted.without_companies}
        and (wanted.allowed_J is None or bool(wanted.allowed_J[number]))
    )


def _same_city(job: dict, search: Search) -> bool:
    what = "city" if _plain(job["city"]) and _plain(search.city) else "region"
    return bool(_plain(getattr(search, what))) and _plain(job[what]) == _plain(getattr(search, what))


def _days(job: dict) -> int:
    return -1_000_000 if job["posted_at"] is None else us(job["posted_at"]) // 86_400_000_000


def _plain(name: str | None) -> str:
    return (name or "").strip().lower()
