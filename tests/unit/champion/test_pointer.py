"""How the pointer may move, by example and for any order of runs."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritower.champion.pointer import Champion, Pointer, State, advanced, moment, promoted

DAY_US = 86_400_000_000


def model(name: str) -> Champion:
    return Champion(version=1, ranker_model=f"runs/{name}/model", encoder=f"runs/{name}/encoder", run=name)


def state(name: str, day: int) -> State:
    return State(location=f"runs/{name}/state", reaches_to_us=day * DAY_US, run=name)


def test_the_first_model_and_the_next() -> None:
    first = promoted(Pointer(), model("a"), state("a", 3))
    assert first.pointer == Pointer(champion=model("a"), state=state("a", 3))
    assert first.why == "promoted: champion version 1"
    second = promoted(first.pointer, model("b"), state("b", 2), against=1)
    assert second.pointer.champion == replace(model("b"), version=2)
    assert second.pointer.previous == model("a")
    assert second.pointer.state == state("b", 2), "the state goes with the model, be it back in time"


def test_a_training_that_is_tried_again_changes_nothing() -> None:
    first = promoted(Pointer(), model("a"), state("a", 3)).pointer
    moved = advanced(first, state("day4", 4), against=1).pointer
    again = promoted(moved, replace(model("a"), at="later"), state("a", 3))
    assert again.pointer == moved and "already" in again.why


def test_a_verdict_counts_against_the_champion_that_it_was_about() -> None:
    now = promoted(Pointer(), model("a"), state("a", 3)).pointer
    now = promoted(now, model("b"), state("b", 3), against=1).pointer
    late = promoted(now, model("c"), state("c", 9), against=1)
    assert late.pointer == now
    assert late.why == "it was compared with champion version 1, and version 2 is in use by now: nothing moves"


def test_days_in_order_again_and_backwards() -> None:
    now = promoted(Pointer(), model("a"), state("a", 3)).pointer
    fourth = advanced(now, state("day4", 4), against=1).pointer
    assert fourth.state == state("day4", 4)
    assert advanced(fourth, replace(state("day4", 4), at="later"), against=1).why == "this state is recorded already"
    back_filled = advanced(fourth, state("day3", 3), against=1)
    assert back_filled.pointer == fourth
    assert back_filled.why == "a state that reaches as far is recorded (1970-01-05T00:00:00Z): nothing moves"
    assert advanced(fourth, state("day6", 6), against=1).pointer.state == state("day6", 6)


def test_a_day_that_began_with_the_champion_before_moves_nothing() -> None:
    now = promoted(Pointer(), model("a"), state("a", 3)).pointer
    now = promoted(now, model("b"), state("b", 3), against=1).pointer
    late = advanced(now, state("day4", 4), against=1)
    assert late.pointer == now and "champion version 1, and version 2 is in use" in late.why
    assert advanced(Pointer(), state("day4", 4), against=1).pointer == Pointer()


def test_moments() -> None:
    assert moment(4 * DAY_US + 1) == "1970-01-05T00:00:00Z"


@pytest.mark.parametrize("wrong", [{"version": 0}, {"ranker_model": ""}, {"encoder": ""}])
def test_a_champion_names_both_its_parts(wrong: dict[str, object]) -> None:
    from tritower.errors import ConfigError

    with pytest.raises(ConfigError):
        replace(model("a"), **wrong)  # type: ignore[arg-type]


_RUNS = st.lists(st.tuples(st.booleans(), st.integers(0, 4), st.integers(0, 9), st.integers(0, 3)), max_size=30)


@given(_RUNS)
def test_whatever_the_order_of_runs(runs: list[tuple[bool, int, int, int]]) -> None:
    """Each run (a training or a day) saw the champion of a while ago. The state is always of the champion's own run or of a day
    that worked with it, never goes back under one champion, and each promotion counts one up."""
    now, seen, worked_with = Pointer(), [0], dict[str, int]()
    for number, (is_training, lag, day, again) in enumerate(runs):
        against = seen[max(len(seen) - 1 - lag, 0)]
        name = f"{number}"
        for _ in range(1 + again):
            before = now
            if is_training:
                now = promoted(now, model(name), state(name, day), against=against).pointer
                if now.champion and now.champion.run == name:
                    worked_with.setdefault(name, now.champion.version)
            else:
                worked_with[name] = against
                now = advanced(now, state(name, day), against=against).pointer
            if before.champion == now.champion and before.state and now.state:
                assert now.state.reaches_to_us >= before.state.reaches_to_us
            version = now.champion.version if now.champion else 0
            assert version - (before.champion.version if before.champion else 0) in (0, 1)
            if now.state:
                assert worked_with[now.state.run] == version
        seen.append(now.champion.version if now.champion else 0)
