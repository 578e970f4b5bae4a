"""A single column against the clicks: exact, sampled, and never by chance."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import roc_auc_score
from tritower import telltale


@given(hnp.arrays(np.float32, st.integers(2, 80), elements=st.integers(-3, 3).map(float)), st.integers(0, 2**32 - 1))
def test_separation_is_the_auc_or_that_of_the_negative(value, seed):
    clicked = np.random.default_rng(seed).random(len(value)) < 0.4
    clicked[:2] = True, False
    auc = roc_auc_score(clicked, value)
    assert telltale.separation(value, clicked) == pytest.approx(max(auc, 1 - auc), abs=1e-12)


def write(folder: Path, rows: int, clicks: int, row_group: int = 1000) -> None:
    """A split whose `leak` is the label and whose `noise` is not."""
    rng = np.random.default_rng(0)
    clicked = np.zeros(rows, bool)
    clicked[rng.choice(rows, clicks, replace=False)] = True
    keys = {name: rng.integers(0, 50, rows) for name in telltale.KEYS}
    table = pa.table({**keys, "clicked": clicked, "leak": clicked.astype(np.float32), "noise": rng.normal(size=rows)})
    (folder / "test").mkdir(parents=True)
    pq.write_table(table, folder / "test" / "part-0000.parquet", row_group_size=row_group)


def test_a_large_split_is_sampled_from_all_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(telltale, "ROWS", 2000)
    write(tmp_path, 20_000, 1000)
    sample = telltale.sample(tmp_path / "test", ["leak", "clicked"])
    assert len(sample) == 2000
    found = telltale.columns(tmp_path, ["leak", "noise"], ["train", "test"], 0.9)
    assert [(told.column, told.split, told.missing, told.auc) for told in found] == [("leak", "test", False, 1.0)]
    assert str(found[0]) == "leak (its value alone has AUC 1.0000 on the test rows)"


@pytest.mark.parametrize(("clicks", "found"), [(29, 0), (30, 1)])
def test_a_handful_of_clicks_proves_nothing(tmp_path, clicks, found):
    write(tmp_path, 500, clicks)
    assert len(telltale.columns(tmp_path, ["leak"], ["test"], 0.9)) == found
