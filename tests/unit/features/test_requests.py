"""The table of searches read piece by piece gives what the whole table holds."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tritower.errors import StorageError
from tritower.features.places import PlaceCodes
from tritower.features.requests import Requests

COUNT = 1_000
CITIES = ["Boston", None, "Remote", "Austin", "boston "]


def requests(folder: Path, numbers: np.ndarray, row_group: int, *, statistics: bool = True) -> Requests:
    city = [CITIES[number % 5] for number in numbers]
    columns = {
        "request": pa.array(numbers, pa.int64()),
        "request_id": [f"r{number}" for number in numbers],
        "query_text": pa.array(numbers % 7, pa.int32()),
        "city": pa.array(city, pa.string()),
        "region": pa.nulls(len(numbers), pa.string()),
        "country": pa.array(["US"] * len(numbers)),
    }
    path = folder / "requests.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=row_group, write_statistics=statistics)
    return Requests(path, np.arange(7) == 3, PlaceCodes())


@pytest.mark.parametrize("statistics", [True, False])
def test_places_in_time_order_and_at_random(tmp_path: Path, statistics: bool) -> None:
    table = requests(tmp_path, np.arange(COUNT), 64, statistics=statistics)
    rng = np.random.default_rng(0)
    asked = [np.arange(first, min(first + 90, COUNT)) for first in range(0, COUNT, 45)] + [rng.integers(0, COUNT, 50)]
    codes: dict[str, set[int]] = {}
    for request_N in asked:
        place_3N, remote_N = table.of(request_N)
        assert ((place_3N[0] < 0) == np.isin(request_N % 5, [1, 2])).all()
        assert (place_3N[1] == -1).all()
        assert (remote_N == ((request_N % 7 == 3) | (request_N % 5 == 2))).all()
        for number, code in zip(request_N % 5, place_3N[0], strict=True):
            codes.setdefault(str(CITIES[number]).strip().lower(), set()).add(int(code))
    assert all(len(seen) == 1 for seen in codes.values())
    assert codes["boston"] != codes["austin"]


def test_only_the_row_groups_asked_for_are_held(tmp_path: Path) -> None:
    table = requests(tmp_path, np.arange(COUNT), 64)
    table.of(np.array([500]))
    assert table._place_3W.shape == (3, 64)
    table.of(np.array([63, 64]))
    assert table._place_3W.shape == (3, 128)


def test_sparse_numbers_and_ids(tmp_path: Path) -> None:
    """Searches chosen for candidates keep the numbers they have in the dataset."""
    numbers = np.arange(0, COUNT, 9)
    table = requests(tmp_path, numbers, 10)
    place_3N, _ = table.of(numbers[::-1])
    assert ((place_3N[0] >= 0) == ~np.isin(numbers[::-1] % 5, [1, 2])).all()
    assert table.ids(np.array([900, 9, 450])).to_pylist() == ["r900", "r9", "r450"]
    assert table.ids(np.array([], np.int64)).to_pylist() == []
    assert table.of(np.array([], np.int64))[0].shape == (3, 0)


def test_a_missing_table(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="Was ingest run to its end"):
        Requests(tmp_path / "requests.parquet", np.zeros(0, np.bool_), PlaceCodes())
