import itertools
from collections import Counter

import numpy as np
import pytest
from tritower.errors import DataError
from tritower.experiment.interleaving import preference, team_draft


def test_a_draft_by_hand() -> None:
    """Heads that agree have no team; then each ranker picks its best that is left, in an order of a coin for each round."""
    drafts = {tuple(team_draft("xyab", "xycd", 6, request_id=str(number), salt="s")) for number in range(200)}
    head, first, second = (("x", ""), ("y", "")), (("a", "a"), ("c", "b")), (("b", "a"), ("d", "b"))
    assert drafts == {(*head, *one, *two) for one, two in itertools.product((first, first[::-1]), (second, second[::-1]))}
    assert team_draft("ab", "ba", 3, request_id="r", salt="s") in ([("a", "a"), ("b", "b")], [("b", "b"), ("a", "a")])
    assert (
        team_draft([], ["q"], 3, request_id="r", salt="s") == [("q", "b")]
        and team_draft([], [], 3, request_id="r", salt="s") == []
    )


def test_a_draft_is_the_same_whenever_it_is_asked_and_fair_over_requests() -> None:
    drafts = [team_draft("abcdef", "fedcba", 5, request_id=f"r{number}", salt="s") for number in range(4000)]
    assert drafts == [team_draft("abcdef", "fedcba", 5, request_id=f"r{number}", salt="s") for number in range(4000)]
    for place in range(5):
        teams = Counter(draft[place][1] for draft in drafts)
        assert teams["a"] / 4000 == pytest.approx(0.5, abs=0.04)
    assert all(len({job for job, _ in draft}) == 5 for draft in drafts)


def test_votes_by_hand() -> None:
    """User 1 clicks two of a's and one of b's: a vote for a. User 2 one of each: half a vote. User 3 for b. User 4: none."""
    user = np.array([1, 1, 1, 2, 2, 3, 4, 1])
    team = ["a", "a", "b", "a", "b", "b", "b", ""]
    clicked = np.array([1, 1, 1, 1, 1, 1, 0, 1], bool)
    found = preference(user, team, clicked)
    assert found.share_b == pytest.approx((0 + 0.5 + 1) / 3) and found.users == 3 and found.p == 1.0
    assert preference(np.arange(30), ["b"] * 30, np.ones(30, bool)).low > 0.5
    with pytest.raises(DataError, match="nobody clicked"):
        preference(user, team, np.zeros(8, bool))


def test_between_equal_rankers_there_is_no_preference() -> None:
    random, false = np.random.default_rng(0), 0
    for _ in range(400):
        user = random.integers(0, 300, 3000)
        team = np.array(["a", "b"])[random.integers(0, 2, 3000)]
        like = random.beta(1, 12, 300)
        false += preference(user, team.tolist(), random.random(3000) < like[user]).p < 0.05
    assert false / 400 == pytest.approx(0.05, abs=0.033)
