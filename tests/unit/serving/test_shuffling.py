"""Shuffled lists: every order equally likely, the propensities those of an enumeration, the same list from every process."""

import itertools
from collections import Counter

import pytest
from scipy.stats import chi2
from tritower.serving.messages import Answer, RankedJob, Versions
from tritower.serving.shuffling import draws, permutation, shuffled

VERSIONS = Versions(bundle="b", name="main", model="m", encoder="e", catalogue="c", state="")


def answer(request_id: str, jobs: int) -> Answer:
    ranked = tuple(
        RankedJob(job_id=f"j{i}", rank=i + 1, score=1 / (i + 2), title=f"title {i}", company="Acme") for i in range(jobs)
    )
    return Answer(request_id=request_id, ts=0, jobs=ranked, versions=VERSIONS)


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_every_series_of_draws_gives_another_order(count: int) -> None:
    series = itertools.product(*(range(i + 1) for i in range(count - 1, 0, -1)))
    found = [tuple(permutation(drawn)) for drawn in series]
    assert sorted(found) == sorted(itertools.permutations(range(count)))
    at = Counter((job, rank) for order in found for rank, job in enumerate(order))
    assert {times / len(found) for times in at.values()} == {1 / count}, "the propensity of each job at each position"


def test_draws_are_even() -> None:
    found = Counter(tuple(permutation(draws(f"r{number}", 4))) for number in range(24_000))
    assert len(found) == 24
    assert chi2.sf(sum((times - 1_000) ** 2 / 1_000 for times in found.values()), 23) > 0.001


def test_a_share_of_the_lists_is_shuffled_at_the_top() -> None:
    lists = [shuffled(answer(f"r{number}", 6), share=0.1, top=3) for number in range(5_000)]
    moved = [one for one in lists if any(job.propensity < 1 for job in one.jobs)]
    assert len(moved) == pytest.approx(500, abs=80)
    for one in moved:
        assert [job.rank for job in one.jobs] == [1, 2, 3, 4, 5, 6]
        assert [job.propensity for job in one.jobs] == [1 / 3] * 3 + [1] * 3
        assert {job.job_id for job in one.jobs[:3]} == {"j0", "j1", "j2"}
        assert [job.job_id for job in one.jobs[3:]] == ["j3", "j4", "j5"]
        assert not one.randomised, "the last three are in the model's order"
    # Over all lists: a job of the top is at a position with share/3, and at its own with 1 - share more.
    at_first = Counter(one.jobs[0].job_id for one in lists)
    assert at_first["j1"] / 5_000 == pytest.approx(0.1 / 3, abs=0.01)
    assert at_first["j0"] / 5_000 == pytest.approx(0.9 + 0.1 / 3, abs=0.015)


def test_the_same_request_gets_the_same_list() -> None:
    one = shuffled(answer("r1", 5), share=1, top=10)
    assert one == shuffled(answer("r1", 5), share=1, top=10)
    assert one.randomised
    assert [job.propensity for job in one.jobs] == [1 / 5] * 5
    assert [job.job_id for job in one.jobs] == ["j0", "j4", "j2", "j3", "j1"], "what every version must give"
    for same in (answer("r1", 1), answer("r1", 0)):
        assert shuffled(same, share=1, top=10) is same
    assert shuffled(answer("r1", 5), share=0, top=10) == answer("r1", 5)
