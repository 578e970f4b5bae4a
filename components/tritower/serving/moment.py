"""The time that a search without one is answered for, and what its answer says of a state that has fallen behind it."""

import dataclasses
import datetime as dt

from tritower.serving.messages import Answer, Question

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_DAY_US = 86_400_000_000
_STALE_US = 14 * _DAY_US
"""A server that is fed is behind by seconds, one with a new bundle a day by a day. Past this, adverts have run out unseen and
habits are forgotten: a demo's state, or one whose updates have ended."""


def microseconds(moment: dt.datetime) -> int:
    """Since 1970, of a time with a zone."""
    return (moment - _EPOCH) // dt.timedelta(microseconds=1)


def last_event(state: str) -> int | None:
    """The first moment after a state's last event, in microseconds since 1970; None where it has none.

    Args:
        state: `Versions.state`.
    """
    if not state:
        return None
    return microseconds(dt.datetime.fromisoformat(state)) + 1


def is_stale(state: str, now: int) -> bool:
    """Whether the state's last event is so long before a time (microseconds since 1970) that a user should know."""
    last = last_event(state)
    return last is not None and last < now - _STALE_US


def as_of_last_event(question: Question, state: str) -> Question:
    """The question, asked as of the state's last event unless it names a time."""
    return question if question.ts is not None else dataclasses.replace(question, ts=last_event(state))


def warned(question: Question, answer: Answer) -> Answer:
    """The answer; where the question names no time and the state is old, with a warning."""
    state = answer.versions.state
    if question.ts is not None or not is_stale(state, answer.ts):
        return answer
    days = (answer.ts - (last_event(state) or 0)) // _DAY_US
    warning = (
        f"answered as of now, {days} days after the last event that the server knows ({state[:10]}): adverts that have expired "
        "since are not found, and clicks count as long past; give ts, or let the server answer as of its last event (as_of)"
    )
    return dataclasses.replace(answer, warnings=(*answer.warnings, warning))
