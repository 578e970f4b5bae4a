"""Rows that come after the state has moved on: told from those counted before, said, and refused when they are many."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritower import schema
from tritower.errors import DataError
from tritower.features import source, step
from tritower.features.config import FeaturesConfig
from tritower.features.counted import DAY_US, Counted

from tests.support import tiny_dataset

CONFIG = FeaturesConfig()


@pytest.fixture(autouse=True, scope="module")
def small_batches() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "BATCH_ROWS", 40)
        yield


def compute(source: Path, out: Path, config: FeaturesConfig = CONFIG, **more: object) -> dict[str, float]:
    return step.run(
        dataset=source / "dataset", embeddings=source / "embeddings", features=out, config=config, **more  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dataset.build(tmp_path_factory.mktemp("whole"), requests=80, tie_share=0.2)


def without(folder: Path, *requests: int) -> Path:
    """Take some searches and their rows out of a dataset."""
    tables = [folder / "dataset" / "requests.parquet"]
    tables += [folder / "dataset" / "impressions" / split / "part-00000.parquet" for split in schema.SPLITS]
    for path in tables:
        table = pq.read_table(path, partitioning=None)
        pq.write_table(table.filter(pc.invert(pc.is_in(table.column("request"), pa.array(requests)))), path)
    return folder


def test_late_rows_are_counted_apart_and_said(whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = without(tiny_dataset.excerpt(whole, tmp_path / "first", 0, 40, seed=1), 10, 20)
    compute(first, tmp_path / "a")
    with caplog.at_level(logging.WARNING):
        numbers = compute(whole, tmp_path / "b", previous=tmp_path / "a")
    assert numbers["rows_late"] == 2 * 5
    assert numbers["rows_skipped"] == 38 * 5
    assert numbers["rows"] == 40 * 5
    assert "10 rows came late" in caplog.text
    # The state hands its memory on: the day after, the same rows are as late as before.
    later = tiny_dataset.excerpt(whole, tmp_path / "second", 0, 79, seed=2)
    compute(later, tmp_path / "c", previous=tmp_path / "a")
    numbers = compute(whole, tmp_path / "d", previous=tmp_path / "c", config=FeaturesConfig(max_late_share=1))
    assert (numbers["rows_late"], numbers["rows"]) == (2 * 5, 5)


def test_too_many_late_rows_stop_the_run(whole: Path, tmp_path: Path) -> None:
    first = without(tiny_dataset.excerpt(whole, tmp_path / "first", 0, 40, seed=1), 10, 20, 30)
    compute(first, tmp_path / "a")
    with pytest.raises(DataError, match=r"15 rows came late.* 200 are new.*at most 5\.0% may be late"):
        compute(whole, tmp_path / "b", previous=tmp_path / "a")
    assert not (tmp_path / "b").exists()


def test_a_state_from_the_future_is_refused(whole: Path, tmp_path: Path) -> None:
    compute(whole, tmp_path / "a")
    first = tiny_dataset.excerpt(whole, tmp_path / "first", 0, 40, seed=1)
    with pytest.raises(DataError, match=r"the state reaches to 2023-11-\d\d .* it would see the future"):
        compute(first, tmp_path / "b", previous=tmp_path / "a")


def test_a_state_that_has_counted_everything_is_refused(whole: Path, tmp_path: Path) -> None:
    compute(whole, tmp_path / "a")
    with pytest.raises(DataError, match="has counted every row"):
        compute(whole, tmp_path / "b", previous=tmp_path / "a")


def requests(folder: Path, name: str, ids: list[int], days: list[int]) -> Path:
    path = folder / f"{name}.parquet"
    table = {"request": range(len(ids)), "request_id": [f"r{i}" for i in ids], "ts": [day * DAY_US + 5 for day in days]}
    pq.write_table(pa.table(table, pa.schema({"request": pa.int64(), "request_id": pa.string(), "ts": pa.int64()})), path)
    return path


@given(data=st.data())
def test_late_equals_brute_force(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Within the days remembered to the row, before that as far as a day has more searches than were counted."""
    folder = tmp_path_factory.mktemp("late")
    day_of = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=40), "day of each search")
    known = sorted(data.draw(st.sets(st.integers(0, len(day_of) - 1), min_size=1), "counted before"))
    window = data.draw(st.integers(1, 10), "days remembered")
    rows = np.array(data.draw(st.lists(st.integers(1, 5), min_size=len(day_of), max_size=len(day_of)), "rows"))
    counted = Counted.empty().with_new(
        requests(folder, "known", known, [day_of[i] for i in known]), since_us=0, remembered_days=window
    )
    counted.write(folder)
    counted = Counted.read(folder)
    now = max(day_of[i] for i in known) * DAY_US + 5
    early = [i for i in range(len(day_of)) if day_of[i] * DAY_US + 5 < now]
    first_remembered = min([day_of[i] for i in known if day_of[i] > now // DAY_US - window])
    expected, old = 0, 0.0
    for day in {day_of[i] for i in early}:
        mine = [i for i in early if day_of[i] == day]
        if day >= first_remembered:
            expected += int(sum(rows[i] for i in mine if i not in known))
        else:
            more = max(0, len(mine) - sum(day_of[i] == day for i in known))
            old += sum(rows[i] for i in mine) * more / len(mine)
    everything = requests(folder, "all", list(range(len(day_of))), day_of)
    rows_R = np.where(np.isin(np.arange(len(day_of)), early), rows, 0)
    assert counted.late(everything, rows_R, now) == expected + int(np.ceil(round(old, 9)))
