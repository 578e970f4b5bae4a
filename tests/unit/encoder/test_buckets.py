import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tritower.encoder.buckets import exact_length_batches


def test_batches_by_hand() -> None:
    batches = exact_length_batches(np.array([3, 2, 3, 3, 9], np.int32), token_budget=6)
    assert [batch.tolist() for batch in batches] == [[4], [0, 2], [3], [1]]


@given(hnp.arrays(np.int32, st.integers(0, 200), elements=st.integers(1, 40)), st.integers(16, 100))
def test_every_text_once_in_a_batch_of_its_own_length_within_the_budget(length_N: np.ndarray, budget: int) -> None:
    batches = exact_length_batches(length_N, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(length_N)))
    for batch in batches:
        assert len(set(length_N[batch])) == 1
        assert len(batch) == 1 or length_N[batch].sum() <= budget
