"""Two rankers' lists in one, and whose each job is. Nothing heavy is imported: the server drafts, too.

Team-draft interleaving (Radlinski, Kurup and Joachims, CIKM 2008): in each round a coin says which ranker picks first; each
adds its best job that is not in the list yet. A click is a point for the ranker that picked the job. Two kinds of jobs have no
team, since a click on them says nothing: those at the head of both lists that are the same, and those that one list has left
when the other has no more, or the longer list would win by its length.

The coin of round i falls to a where fraction(request_id, "interleaving:" + salt + ":" + i) is below a half: the same on every
machine, and whoever has the request's id can throw it again.
"""

from collections.abc import Hashable, Sequence
from typing import Literal, TypeVar

from tritower.assignment import fraction

Team = Literal["a", "b", ""]
Job = TypeVar("Job", bound=Hashable)


def team_draft(a: Sequence[Job], b: Sequence[Job], k: int, *, request_id: str, salt: str) -> list[tuple[Job, Team]]:
    """A list of both rankers' jobs, and whose each is; the same for a request whenever it is asked.

    Args:
        a, b: the rankers' lists, best first; of a job that comes twice the first place counts.
        k: jobs wanted; fewer where both lists end.
        request_id, salt: decide the coins.

    >>> team_draft(["x", "y"], ["x", "z"], 2, request_id="r1", salt="s")[0]
    ('x', '')
    """
    left_a, left_b = list(dict.fromkeys(a)), list(dict.fromkeys(b))
    picked: list[tuple[Job, Team]] = []
    while left_a and left_b and left_a[0] == left_b[0]:
        picked.append((left_a.pop(0), ""))
        left_b.pop(0)
    number = 0
    while len(picked) < k and _is_fair(left_a, left_b):
        order: tuple[Team, Team] = ("a", "b") if coin(request_id, salt, number) else ("b", "a")
        for team in order:
            job = (left_a if team == "a" else left_b)[0]
            picked.append((job, team))
            left_a, left_b = _without(left_a, job), _without(left_b, job)
        number += 1
    picked += [(job, "") for job in dict.fromkeys([*left_a, *left_b])]
    return picked[:k]


def coin(request_id: str, salt: str, number: int) -> bool:
    """Whether ranker a picks first in a round of a request's draft; rounds count from 0."""
    return fraction(request_id, f"interleaving:{salt}:{number}") < 0.5


def _is_fair(a: Sequence[Job], b: Sequence[Job]) -> bool:
    """Whether both rankers have a job to pick, whichever is first."""
    return bool(a and b) and (a[0] != b[0] or (len(a) > 1 and len(b) > 1))


def _without(jobs: list[Job], job: Job) -> list[Job]:
    return [one for one in jobs if one != job]
