"""The one door for outside values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritower import config
from tritower.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Inner:
    depth: int = 3


@dataclass(frozen=True, kw_only=True)
class Knobs:
    rows: int = 1
    rate: float = 0.5
    name: str = "a"
    on: bool = False
    kind: Literal["x", "y"] = "x"
    widths: tuple[int, ...] = (1, 2)
    limit: float | None = None
    inner: Inner = field(default_factory=Inner)

    FORMER: ClassVar[Mapping[str, str | config.Removed]] = {
        "pace": "rate",
        "depth": "inner.depth",
        "noise": config.Removed("it changed nothing", off=0.0),
        "order": config.Removed("one order is left", off="by size"),
    }

    def __post_init__(self) -> None:
        config.check(self.rows >= 0, "rows", self.rows, "of 0 or more")


@pytest.mark.parametrize("given_value", [5, 5.0, "5", "5.0"])
def test_an_int_arrives_as_int_float_or_text(given_value: object) -> None:
    built = config.from_dict(Knobs, {"rows": given_value})
    assert built.rows == 5
    assert type(built.rows) is int


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"rate": "0.25"}, Knobs(rate=0.25)),
        ({"on": "true"}, Knobs(on=True)),
        ({"on": 0}, Knobs(on=False)),
        ({"widths": "256,128"}, Knobs(widths=(256, 128))),
        ({"widths": "[256, 128]"}, Knobs(widths=(256, 128))),
        ({"widths": [8.0]}, Knobs(widths=(8,))),
        ({"limit": None}, Knobs()),
        ({"limit": "2"}, Knobs(limit=2.0)),
        ({"inner": {"depth": "4"}}, Knobs(inner=Inner(depth=4))),
        ({"inner": '{"depth": 4}'}, Knobs(inner=Inner(depth=4))),
        ({"inner.depth": "4"}, Knobs(inner=Inner(depth=4))),
        ({"depth": 4.0, "pace": 1}, Knobs(rate=1.0, inner=Inner(depth=4))),
        ({"noise": "0", "order": "by size"}, Knobs()),
        ({"name": 7}, Knobs(name="7")),
        (None, Knobs()),
        ('{"rows": "3", "inner": {"depth": 4}}', Knobs(rows=3, inner=Inner(depth=4))),
    ],
)
def test_values_convert_to_the_declared_type(values: dict[str, object] | str | None, expected: Knobs) -> None:
    assert config.from_dict(Knobs, values) == expected


@pytest.mark.parametrize(
    ("values", "fragments"),
    [
        ({"rowz": 1}, ["'rowz'", "Knobs", "Did you mean 'rows'?"]),
        ({"zzzzzz": 1}, ["'zzzzzz'", "Known knobs: inner.depth, kind"]),
        ({"rows": "five"}, ["'five'", "Knobs.rows"]),
        ({"rows": 5.5}, ["5.5", "Knobs.rows"]),
        ({"rows": -1}, ["rows is -1", "Knobs.rows", "0 or more"]),
        ({"rate": float("nan")}, ["nan", "Knobs.rate", "finite"]),
        ({"rate": "inf"}, ["Knobs.rate"]),
        ({"kind": "z"}, ["'z'", "Knobs.kind"]),
        ({"inner": {"dept": 4}}, ["'dept'", "Knobs.inner", "Did you mean 'depth'?"]),
        ({"inner.dept": 4}, ["'dept'", "Knobs.inner", "Did you mean 'depth'?"]),
        ({"dept": 4}, ["'dept'", "Knobs", "Did you mean 'inner.depth'?"]),
        ({"rows.depth": 4}, ["unknown knob 'rows.depth'", "Did you mean 'inner.depth'?"]),
        ({"depth": 4, "inner": '{"depth": 3}'}, ["given twice", "Knobs.inner"]),
        ({"pace": 1, "rate": 1}, ["given twice", "Knobs.rate"]),
        ({"depth": 4, "inner": 3}, ["Knobs.inner"]),
        ({"noise": 0.1}, ["'noise' was removed: it changed nothing", "Knobs", "Leave it out"]),
        ({"noise": "much"}, ["'noise' was removed"]),
        ({"order": "by name"}, ["'order' was removed: one order is left"]),
        ({"inner": "deep"}, ["mapping", "Knobs.inner"]),
        ({"widths": "[1, 2"}, ["JSON", "Knobs.widths"]),
        ({"inner": "[4]"}, ["expected a mapping", "Knobs.inner"]),
        ({"inner": 3}, ["expected a mapping, got 3", "Knobs.inner"]),
        ('{"rows": 3', ["not JSON", "Knobs"]),
        ("[3]", ["expected a mapping, got '[3]'", "Knobs"]),
        ("", ["expected a mapping", "Knobs"]),
    ],
)
def test_a_bad_value_is_named_with_its_place_and_remedy(values: dict[str, object] | str, fragments: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        config.from_dict(Knobs, values)
    for fragment in fragments:
        assert fragment in str(caught.value)


@given(
    st.builds(
        Knobs,
        rows=st.integers(0, 10**9),
        rate=st.floats(-1e6, 1e6),
        widths=st.lists(st.integers(1, 4096), max_size=5).map(tuple),
        inner=st.builds(Inner, depth=st.integers(0, 100)),
    )
)
def test_to_dict_and_from_dict_are_inverse(knobs: Knobs) -> None:
    assert config.from_dict(Knobs, config.to_dict(knobs)) == knobs
    as_text = {key: str(value) for key, value in config.to_dict(knobs).items() if key in ("rows", "rate", "widths")}
    assert config.from_dict(Knobs, as_text).widths == knobs.widths


def test_an_absent_nested_config_stays_absent() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Outer:
        inner: Knobs | None = None

    assert config.from_dict(Outer, config.to_dict(Outer())) == Outer()
    assert config.from_dict(Outer, {"inner": {"limit": 2}}) == Outer(inner=Knobs(limit=2.0))
