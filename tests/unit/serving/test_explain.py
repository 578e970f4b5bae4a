"""Reasons against Shapley's definition: every order in which groups can join, one score at a time."""

import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritower.features import catalogue
from tritower.ranker import documents
from tritower.ranker.online import OnlineRanker, Query
from tritower.serving import explain

from tests.support.bundles import Run


@dataclass
class Asked:
    """A search's candidates as the model sees them."""

    ranker: OnlineRanker
    query: Query
    table_JT: np.ndarray
    row_N: np.ndarray
    feature_NF: np.ndarray
    score_N: np.ndarray

    def explain(self, jobs: list[int]) -> list[tuple[explain.Reason, ...]]:
        return explain.explain(self.ranker, self.query, self.table_JT, self.row_N, self.feature_NF, self.score_N, jobs)

    def worth(self, job: int, base: int, members: frozenset[str]) -> float:
        """The logit of a job that takes the features of some groups from `job` and the rest from `base`."""
        of = explain.group_of()
        source = [job if of[name] in members else base for name in self.ranker.names]
        feature_1F = np.array([[self.feature_NF[n, f] for f, n in enumerate(source)]], np.float32)
        row = self.row_N[job if "meaning" in members else base]
        (score,) = self.ranker.score(self.query, self.table_JT, np.array([row]), feature_1F).tolist()
        return math.log(score / (1 - score))

    def shapley(self, job: int, base: int) -> dict[str, float]:
        worth = {
            frozenset(members): self.worth(job, base, frozenset(members))
            for size in range(8)
            for members in itertools.combinations(explain.GROUPS, size)
        }
        total = dict.fromkeys(explain.GROUPS, 0.0)
        for order in itertools.permutations(explain.GROUPS):
            for place, group in enumerate(order):
                before = frozenset(order[:place])
                total[group] += worth[before | {group}] - worth[before]
        return {group: value / math.factorial(7) for group, value in total.items()}


@pytest.fixture(scope="module")
def asked(run: Run, bundle_folder: Path) -> Asked:
    ranker = OnlineRanker.load(bundle_folder / "ranker")
    table_JT = documents.load(bundle_folder / "documents", ranker).table_JT
    rows = pq.read_table(run.sources.features / "test").slice(0, 40)
    feature_NF = np.stack([rows[name].to_numpy() for name in ranker.names]).T.astype(np.float32)
    query = ranker.query(np.load(run.sources.embeddings / "matrix.npy")[int(rows["query_text"][0].as_py())])
    row_N = rows["job"].to_numpy()
    return Asked(ranker, query, table_JT, row_N, feature_NF, ranker.score(query, table_JT, row_N, feature_NF))


def test_every_feature_has_a_group() -> None:
    names = [feature.name for group in catalogue.GROUPS.values() for feature in group]
    of = explain.group_of()
    assert list(of) == names and set(of.values()) == set(explain.GROUPS)
    told = {
        "job_ctr": "popularity", "title_token_set": "words", "entity_skill_overlap": "entities", "history_cos_max": "you",
        "searches_same_query": "you", "wanted_cos_max": "you", "past_token_set_max": "you", "query_document_cos": "meaning",
        "seniority_query_distance": "entities", "seniority_user_distance": "you", "home_city_match": "place",
        "job_remote": "place", "job_age_days": "time", "hour_of_week": "time",
    }  # fmt: skip
    assert {name: of[name] for name in told} == told


def test_values_are_shapleys(asked: Asked) -> None:
    base = explain.median(asked.score_N)
    for job in (0, 7, 21):
        found = {reason.group: reason.value for reason in asked.explain([job])[0]}
        wanted = asked.shapley(job, base)
        assert {group for group, value in wanted.items() if abs(value) > 1e-4} <= found.keys()
        for group, value in wanted.items():
            assert found.get(group, 0.0) == pytest.approx(value, abs=2e-5)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.floats(0, 1))
def test_values_add_up_to_the_logit(asked: Asked, seed: int, jobs: int, missing: float) -> None:
    rng = np.random.default_rng(seed)
    feature_NF = asked.feature_NF[rng.integers(0, len(asked.feature_NF), size=jobs)].copy()
    feature_NF[rng.random(feature_NF.shape) < missing] = np.nan
    row_N = rng.integers(0, len(asked.table_JT), size=jobs)
    score_N = asked.ranker.score(asked.query, asked.table_JT, row_N, feature_NF)
    one = Asked(asked.ranker, asked.query, asked.table_JT, row_N, feature_NF, score_N)
    logit_N = np.log(score_N.astype(np.float64)) - np.log1p(-score_N.astype(np.float64))
    base = explain.median(score_N)
    for job, reasons in enumerate(one.explain(list(range(jobs)))):
        assert sum(reason.value for reason in reasons) + logit_N[base] == pytest.approx(logit_N[job], abs=1e-5)
        sizes = [abs(reason.value) for reason in reasons]
        assert sizes == sorted(sizes, reverse=True) and len({reason.group for reason in reasons}) == len(reasons)
        assert job != base or reasons == ()


def test_a_group_that_does_not_differ_is_not_named(asked: Asked) -> None:
    base, of = explain.median(asked.score_N), explain.group_of()
    feature_NF = asked.feature_NF.copy()
    same = [f for f, name in enumerate(asked.ranker.names) if of[name] in ("you", "time")]
    feature_NF[:, same] = feature_NF[base, same]
    one = Asked(asked.ranker, asked.query, asked.table_JT, asked.row_N, feature_NF, asked.score_N)
    assert {reason.group for reasons in one.explain(list(range(20))) for reason in reasons} == {
        *explain.GROUPS[:3], "meaning", "place"
    }  # fmt: skip


def test_the_median_job() -> None:
    assert [explain.median(np.array(scores)) for scores in ([0.3], [0.1, 0.9], [0.5, 0.1, 0.9], [0.2, 0.8, 0.4, 0.6])] == [
        *(0, 1, 0), 3
    ]  # fmt: skip


def test_nothing_to_explain(asked: Asked) -> None:
    assert asked.explain([]) == []
