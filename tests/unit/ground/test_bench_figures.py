"""What a bench reports can be: a child's memory is its own, and nothing is beyond its limit."""

import sys
from pathlib import Path

import pytest

from tests.bench import pooling, timing


def test_a_childs_peak_is_its_own_however_large_its_parent_is():
    held = bytearray(b"x") * (300 << 20)
    small = timing.measured("import sys\nresult = int(sys.argv[1]) * 2", "21")
    assert small["result"] == 42 and small["cpu_s"] > 0 and small["wall_s"] > 0
    large = timing.measured("block = bytearray(b'x') * (150 << 20)\ndel block")
    assert len(held) and small["peak_mib"] < 100 < 150 < large["peak_mib"] < 250


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the mark is reset by a file of Linux's")
def test_a_peak_can_be_forgotten():
    program = """
import timing
block = bytearray(b'x') * (200 << 20)
del block
high = timing.peak_mib()
timing.forget_peak()
result = [high, timing.peak_mib()]
"""
    here = str(Path(timing.__file__).parent)
    high, after = timing.measured(f"import sys\nsys.path.insert(0, {here!r})\n" + program)["result"]
    assert high > 200 > 100 > after


@pytest.mark.parametrize("row", [{"ours": 1.0, "limit_share": 1.65}, {"ours": 1.0, "limit_share": 0.0}, {"ours": 0.0}])
def test_a_figure_that_cannot_be_is_no_figure(row):
    with pytest.raises(ValueError, match="some row"):
        timing.checked({"name": "some row", "unit": "CPU s", **row})


def test_a_figure_that_can_be_stays():
    row = {"name": "some row", "unit": "CPU s", "ours": 1.0, "limit_share": 0.93}
    assert timing.checked(row) is row


def test_lifts_of_seeds_are_pooled_and_one_without_an_interval_leaves_none():
    first, second = {"value": 0.1, "low": 0.07, "high": 0.13}, {"value": 0.2, "low": 0.16, "high": 0.24}
    # Half widths .03 and .04: the mean's is sqrt(.0009 + .0016) / 2 = .025.
    assert pooling.pooled([first, second]) == pytest.approx({"value": 0.15, "low": 0.125, "high": 0.175})
    none = {"value": 0.3, "low": None, "high": None, "reason": "it rests on a single user"}
    assert pooling.pooled([first, none]) == {"value": 0.2, "low": None, "high": None, "reason": "it rests on a single user"}
    assert pooling.pooled([first, {"value": None, "low": None, "high": None}])["value"] is None
