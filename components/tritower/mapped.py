"""Arrays and strings as files that are mapped, not read: processes of a machine share them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def written(folder: Path, name: str, values: NDArray[Any] | pa.Array) -> None:
    """Write an array as `NAME.npy`, strings as `NAME.arrow`."""
    if isinstance(values, np.ndarray):
        np.save(folder / f"{name}.npy", values, allow_pickle=False)
        return
    table = pa.table({name: values})
    with pa.OSFile(str(folder / f"{name}.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def opened(folder: Path, name: str) -> NDArray[Any]:
    """An array that `written` wrote, not to be written to."""
    path = folder / f"{name}.npy"
    mapped = np.load(path, allow_pickle=False) if _is_empty(path) else np.load(path, mmap_mode="r", allow_pickle=False)
    array: NDArray[Any] = np.asarray(mapped)
    array.flags.writeable = False  # one type, thus one compiled kernel, for arrays in memory and in a file
    return array


def own(folder: Path, name: str) -> NDArray[Any]:
    """An array that `written` wrote, to be written to: what is written stays in this process, page by page, and the file as it
    is. Pages that nobody writes to are shared."""
    path = folder / f"{name}.npy"
    array: NDArray[Any] = np.asarray(np.load(path, mmap_mode=None if _is_empty(path) else "c", allow_pickle=False))
    return array


def read_strings(folder: Path, name: str) -> pa.Array:
    """Strings, or an Arrow array of another type, that `written` wrote."""
    with pa.memory_map(str(folder / f"{name}.arrow")) as source:
        column = pa.ipc.open_file(source).read_all().column(name)
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _is_empty(path: Path) -> bool:
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, *_ = read(file)
    return 0 in shape  # an empty file cannot be mapped


def put(old_J: NDArray[Any], number_N: NDArray[np.int64], new_N: NDArray[Any], size: int) -> NDArray[Any]:
    """A copy with other values for some jobs, and room for new ones."""
    out = np.empty((size, *old_J.shape[1:]), old_J.dtype)
    out[: len(old_J)] = old_J
    out[number_N] = new_N
    return out
