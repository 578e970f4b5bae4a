"""The documented table is the code's, and occupations, places and strings by hand."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tritower.features import catalogue, occupations, places
from tritower.features.pairs import PairIndex

README = Path(catalogue.__file__).parent / "README.md"


def test_the_readme_holds_the_current_table() -> None:
    assert catalogue.markdown() in README.read_text(encoding="utf-8"), "run: python -m tritower.features table --write"


def test_names_are_unique() -> None:
    names = catalogue.whole_layout(with_entities=True).names
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("given", "title", "expected"),
    [
        (None, "Sr. Registered Nurse II - Nights", "29-1141.00"),
        ("", "CDL Truck Driver", "53-3032.00"),
        ("Registered Nurses", "anything", "29-1141.00"),
        ("29-1141.00", "Cook", "29-1141.00"),
        ("Wizardry ", "Cook", "wizardry"),
        (None, "qwxyz", None),
    ],
)
def test_occupations(given: str | None, title: str, expected: str | None) -> None:
    assert occupations.of_jobs([given], [title]) == [expected]


def test_places_agree_by_level() -> None:
    """Springfield, IL against itself, Springfield, MA, a remote job, an unknown region, and itself in another country."""
    names = {"city": ["Springfield ", "springfield", "Remote", "SPRINGFIELD", "Springfield"],
             "region": ["IL", "MA", None, None, "IL"], "country": ["US", "US", "US", None, "CA"]}  # fmt: skip
    code_3V = places.PlaceCodes().encode(pa.table(names))
    out_3N = np.empty((3, 5), np.float32)
    places.agree(np.repeat(code_3V[:, :1], 5, axis=1), code_3V, out_3N)
    np.testing.assert_array_equal(out_3N[0], [1, 0, np.nan, 1, 0])
    np.testing.assert_array_equal(out_3N[1], [1, 0, np.nan, np.nan, 0])
    np.testing.assert_array_equal(out_3N[2], [1, 1, 1, np.nan, 0])


def test_pairs_are_numbered_in_order_and_survive_growth() -> None:
    index, known = PairIndex(), dict[tuple[int, int], int]()
    rng = np.random.default_rng(0)
    for size in (1, 10, 5_000, 20_000):
        left, right = rng.integers(-1, 300, (2, size)).astype(np.int32)
        expected = [-1 if a < 0 or b < 0 else known.setdefault((a, b), len(known)) for a, b in zip(left, right, strict=True)]
        np.testing.assert_array_equal(index.numbers(left, right), expected)
    assert list(zip(*(side.tolist() for side in index.pairs()), strict=True)) == [(int(a), int(b)) for a, b in known]
