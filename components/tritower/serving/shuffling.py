"""A small share of the lists is shuffled at the top, so that later tests and off-policy estimates learn what position does.

Which lists, and how, follows from the request's id: the same request gets the same list from every process. Every order of the
first positions is equally likely, so a shuffled job came to its position with a probability of 1 over their number.
"""

import dataclasses
import hashlib
from collections.abc import Sequence

from tritower.assignment import fraction
from tritower.serving.messages import Answer, RankedJob

_CHOICE, _ORDER = "shuffle", "shuffle order"


def shuffled(answer: Answer, *, share: float, top: int) -> Answer:
    """The answer, shuffled or not.

    `randomised` says that the whole list was shuffled: then it is what an evaluation on randomised searches may read. Of a list
    longer than `top`, which is shuffled in part, only the propensities tell.

    Args:
        answer: its jobs in the model's order.
        share: of lists to shuffle, 0 to 1.
        top: positions to shuffle.
    """
    count = min(top, len(answer.jobs))
    if count < 2 or fraction(answer.request_id, _CHOICE) >= share:
        return answer
    order = permutation(draws(answer.request_id, count))
    jobs = tuple(_placed(answer.jobs[old], new + 1, 1 / count) for new, old in enumerate(order)) + answer.jobs[count:]
    return dataclasses.replace(answer, jobs=jobs, randomised=count == len(answer.jobs))


def draws(request_id: str, count: int) -> list[int]:
    """For each i from `count` - 1 down to 1 a number from 0 to i, all equally likely but for one part in 2^60."""
    found = []
    for i in range(count - 1, 0, -1):
        digest = hashlib.blake2b(f"{_ORDER}\0{i}\0{request_id}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
        found.append(int.from_bytes(digest, "big") % (i + 1))
    return found


def permutation(drawn: Sequence[int]) -> list[int]:
    """Fisher and Yates: each of the n! series of draws gives another order of n = len(drawn) + 1."""
    order = list(range(len(drawn) + 1))
    for i, j in zip(range(len(drawn), 0, -1), drawn, strict=True):
        order[i], order[j] = order[j], order[i]
    return order


def _placed(job: RankedJob, rank: int, propensity: float) -> RankedJob:
    return dataclasses.replace(job, rank=rank, propensity=propensity)
