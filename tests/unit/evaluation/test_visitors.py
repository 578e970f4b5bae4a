"""Which ids stand for many people."""

import numpy as np
import pytest
from tritower.evaluation import visitors
from tritower.evaluation.rows import Rows


def rows_of(searches):
    """Searches of two rows; `searches[u]` of user u."""
    user = np.repeat(np.arange(len(searches)), searches)
    count = 2 * len(user)
    zeros = np.zeros(count)
    return Rows(
        row=np.arange(count), request=np.repeat(np.arange(len(user)), 2), user=np.repeat(user, 2).astype(np.int32),
        job=zeros.astype(np.int32), query_text=zeros.astype(np.int32), position=zeros.astype(np.int16), clicked=zeros > 0,
        randomised=zeros > 0, score={},
    )  # fmt: skip


@pytest.mark.parametrize(
    "name", ["guest", " Anonymous ", "", "NULL", "not-logged-in", "00000000-0000-0000-0000-000000000000", "0", "-1"]
)
def test_names_that_stand_for_nobody(name):
    assert visitors.stands_for_nobody(name)


@pytest.mark.parametrize("name", ["u1", "10", "guesthouse", "nobody7", "a0", "00001"])
def test_names_of_somebody(name):
    assert not visitors.stands_for_nobody(name)


@pytest.mark.parametrize(
    ("searches", "shared"),
    [
        ([60], (0,)),  # an only id
        ([300, *[1] * 700], (0,)),  # 30 % of the searches, and nobody else has more than one
        ([300, 200, *[2] * 400], (0, 1)),  # the site's guests and the app's
        ([500, 499], ()),  # two people
        ([400, 400, 400, 400, 400], ()),
        ([50, *[1] * 99], ()),  # a heavy user
        ([300, 40, *[1] * 600], ()),  # 32 % of the searches, but the next has a seventh of them
        ([120, *[1] * 5000], ()),  # 2 % of the searches
    ],
)
def test_ids_by_their_size(searches, shared):
    assert visitors.shared(rows_of(searches), frozenset()).users == shared


def test_each_search_of_a_shared_id_is_a_user_of_its_own():
    rows = rows_of([3, 2, 4])
    found = visitors.shared(rows, frozenset({1}))
    assert (found.users, found.searches, found.share) == ((1,), 2, 2 / 9)
    user = visitors.apart(rows, found).user.reshape(-1, 2)
    assert (user[:, 0] == user[:, 1]).all()
    assert user[:3, 0].tolist() == [0, 0, 0] and user[5:, 0].tolist() == [2, 2, 2, 2]
    assert len(set(user[3:5, 0]) | {0, 2}) == 4
    assert visitors.apart(rows, visitors.shared(rows, frozenset())) is rows
