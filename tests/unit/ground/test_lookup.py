"""Numbers for strings, against a dict."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritower.errors import DataError
from tritower.lookup import Lookup

NAMES = st.lists(st.text(), unique=True, max_size=40)


@given(NAMES, NAMES, st.lists(st.text()), st.integers(0, 3))
def test_it_finds_what_a_dict_finds(known: list[str], added: list[str], asked: list[str], cut: int) -> None:
    lookup, wanted = Lookup(pa.array(["x", "y", "z", *known], pa.string()).slice(3)), {name: n for n, name in enumerate(known)}
    for name in added[:cut]:
        assert lookup.add(name) == wanted.setdefault(name, len(wanted))
    assert lookup.add_all(added) == [wanted.setdefault(name, len(wanted)) for name in added]
    several = [*asked, *known, *added]
    assert lookup.find_all(several).tolist() == [wanted.get(name, -1) for name in several]
    assert lookup.find_all(pa.array(several, pa.string())).tolist() == [wanted.get(name, -1) for name in several]
    assert [lookup.find(name) for name in several] == [wanted.get(name, -1) for name in several]
    assert [lookup[number] for number in range(len(lookup))] == list(wanted) == lookup.since(0)
    assert lookup.since(cut) == list(wanted)[cut:]


def test_strings_that_are_nearly_the_same_are_told_apart() -> None:
    names = ["", " ", "a", "a ", "A", "á", "a\u0301", "a\0", "a\0b", "a" * 5_000, "a" * 5_001, "職", "職\u200b", "😀"]
    lookup = Lookup(pa.array(names))
    assert lookup.find_all(names).tolist() == list(range(len(names)))
    assert lookup.find_all([name + "?" for name in names]).tolist() == [-1] * len(names)


def test_many_strings_that_differ_little() -> None:
    names = [f"j{n:07d}" for n in range(50_000)]
    lookup = Lookup(pa.array(names))
    assert (lookup.find_all(names[::-1]) == np.arange(50_000)[::-1]).all()
    assert (lookup.find_all([f"k{n:07d}" for n in range(50_000)]) == -1).all()


def test_half_a_surrogate_pair_is_found_nowhere() -> None:
    lookup = Lookup(pa.array(["a", "b"]))
    assert lookup.find("\ud800") == -1
    assert lookup.find_all(["b", "\ud800"]).tolist() == [1, -1]


def test_the_slots_serve_another_process() -> None:
    names = pa.array([f"name {n}" for n in range(1_000)])
    again = Lookup(names, Lookup(names).slots)
    assert (again.find_all(names) == np.arange(1_000)).all()


def test_a_name_that_comes_twice_is_refused() -> None:
    with pytest.raises(DataError, match="'b' comes twice"):
        Lookup(pa.array(["a", "b", "c", "b"]))


def test_nothing_is_found_among_nothing() -> None:
    assert Lookup(pa.array([], pa.string())).find_all(["a", ""]).tolist() == [-1, -1]
