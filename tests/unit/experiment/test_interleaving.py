import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritower.errors import DataError
from tritower.experiment.draft import coin, team_draft
from tritower.experiment.interleaving import preference


def drafts_of_all_coins(a: Sequence[str], b: Sequence[str], k: int) -> set[tuple[tuple[str, str], ...]]:
    """Every list that the paper's procedure can give, by trying both sides of each coin; no team for what both put first, and
    none from the round on in which one of two rankers could be left without a job of its own."""
    head = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False))))
    found = set()

    def go_on(picked: tuple[tuple[str, str], ...]) -> None:
        taken = {job for job, _ in picked}
        open_a, open_b = ([job for job in jobs if job not in taken] for jobs in (a, b))
        rounds = []
        for first, second, names in ((open_a, open_b, "ab"), (open_b, open_a, "ba")):
            one = first[:1]
            two = [job for job in second if job not in one][:1]
            rounds.append(tuple(zip(one + two, names, strict=False)) if one and two else ())
        if len(picked) >= k or not all(rounds):
            rest = tuple((job, "") for job in dict.fromkeys([*open_a, *open_b]))
            found.add((*picked, *rest)[:k])
            return
        for one_round in rounds:
            go_on((*picked, *one_round))

    go_on(tuple((job, "") for job in a[:head]))
    return found


def test_a_draft_by_hand() -> None:
    """Heads that agree have no team; then each ranker picks its best that is left, in an order of a coin for each round."""
    drafts = {tuple(team_draft("xyab", "xycd", 6, request_id=str(number), salt="s")) for number in range(200)}
    head, first, second = (("x", ""), ("y", "")), (("a", "a"), ("c", "b")), (("b", "a"), ("d", "b"))
    assert drafts == {(*head, *one, *two) for one, two in itertools.product((first, first[::-1]), (second, second[::-1]))}
    assert team_draft("ab", "ba", 3, request_id="r", salt="s") in ([("a", "a"), ("b", "b")], [("b", "b"), ("a", "a")])
    assert team_draft([], ["q"], 3, request_id="r", salt="s") == [("q", "")], "no merit in the other's having no list"
    assert team_draft([], [], 3, request_id="r", salt="s") == []
    assert team_draft("aab", "aab", 3, request_id="r", salt="s") == [("a", ""), ("b", "")]


LISTS = st.lists(st.sampled_from("uvwxyz"), unique=True, max_size=5)


@settings(deadline=None, max_examples=150)
@given(a=LISTS, b=LISTS, k=st.integers(1, 8))
def test_a_draft_is_one_of_all_that_coins_can_give_and_every_one_comes_up(a: list[str], b: list[str], k: int) -> None:
    expected = drafts_of_all_coins(a, b, k)
    drafts = [tuple(team_draft(a, b, k, request_id=f"r{number}", salt="s")) for number in range(120)]
    assert set(drafts) <= expected
    assert len(expected) > 8 or set(drafts) == expected, "120 requests leave out one of 8 lists once in a million times"
    for draft in drafts[:10]:
        assert {job for job, _ in draft} <= {*a, *b} and len(draft) == min(k, len({*a, *b}))
        assert len({job for job, _ in draft}) == len(draft)
        for stop in range(len(draft)):
            teams = Counter(team for _, team in draft[: stop + 1])
            assert abs(teams["a"] - teams["b"]) <= 1


@settings(deadline=None, max_examples=60)
@given(a=LISTS, b=LISTS, k=st.integers(1, 8))
def test_over_all_coins_neither_ranker_has_more_or_better_places(a: list[str], b: list[str], k: int) -> None:
    """Whoever clicks without reading favours nobody: at each place a and b have their picks equally often."""
    weights: Counter[tuple[int, str]] = Counter()
    for draft in drafts_of_all_coins(a, b, k):
        rounds = (sum(team != "" for _, team in draft) + 1) // 2
        for place, (_, team) in enumerate(draft):
            weights[place, team] += 2.0**-rounds  # type: ignore[assignment]
    assert all(weights[place, "a"] == weights[place, "b"] for place in range(k))


def test_a_draft_is_the_same_whenever_it_is_asked_and_fair_over_requests() -> None:
    drafts = [team_draft("abcdef", "fedcba", 5, request_id=f"r{number}", salt="s") for number in range(4000)]
    assert drafts == [team_draft("abcdef", "fedcba", 5, request_id=f"r{number}", salt="s") for number in range(4000)]
    for place in range(5):
        teams = Counter(draft[place][1] for draft in drafts)
        assert teams["a"] / 4000 == pytest.approx(0.5, abs=0.04)
    assert [draft[0][1] == "a" for draft in drafts] == [coin(f"r{number}", "s", 0) for number in range(4000)]
    assert "".join("ab"[not coin("r1", "s", number)] for number in range(12)) == "aababbaaabba", "what every version must give"


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
