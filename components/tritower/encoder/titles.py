"""Training examples from the vocabulary: two titles of one occupation belong together, one of another does not.

Legend: C examples, K negatives per example, V titles.
"""

from collections.abc import Sequence

import numpy as np

from tritower.encoder.triplets import Clicks


def pairs(
    title_V: Sequence[str], occupation_V: Sequence[str], *, count: int, negatives: int, seed: int
) -> tuple[Clicks, list[str]]:
    """`count` examples of two titles of one occupation, drawn evenly over the occupations, with `negatives` titles of others.

    A title that several occupations go by is not used.

    Returns:
        The examples, numbered by the list of titles that comes with them; their user is -1.
    """
    times: dict[str, int] = {}
    for title in title_V:
        times[title] = times.get(title, 0) + 1
    known = sorted((occupation, title) for title, occupation in zip(title_V, occupation_V, strict=True) if times[title] == 1)
    _, start_G, size_G = np.unique([occupation for occupation, _ in known], return_index=True, return_counts=True)
    start_G, size_G = start_G[size_G > 1], size_G[size_G > 1]
    random = np.random.default_rng(seed)
    group_C = random.integers(len(start_G), size=count)
    start_C, size_C = start_G[group_C], size_G[group_C]
    first_C = random.integers(size_C)
    second_C = (first_C + 1 + random.integers(size_C - 1)) % size_C
    other_CK = random.integers((len(known) - size_C)[:, None], size=(count, negatives))
    other_CK += np.where(other_CK >= start_C[:, None], size_C[:, None], 0)  # over the titles of the pair's own occupation
    number_C = np.arange(count)
    examples = Clicks(np.full(count, -1), start_C + first_C, start_C + second_C, other_CK, number_C)
    return examples, [title for _, title in known]
