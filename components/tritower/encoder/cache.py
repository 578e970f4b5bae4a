"""Vectors by content: a folder or object-store prefix in which each text was embedded once by one encoder.

Segments are Arrow files of (key, vector), written whole or not at all and never changed; a run reads all keys, computes
what is missing and adds segments. A run that was killed leaves the segments it finished, so the next one goes on from there.

Legend: T texts, D dimension.
"""

import hashlib
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.fs import FileSelector

from tritower import storage
from tritower.errors import StorageError

Halves = npt.NDArray[np.float16]
_KEY = pa.binary(16)


def keys_of(texts: Sequence[str]) -> pa.Array:
    """The 128-bit BLAKE2b of each text (RFC 7693)."""
    return pa.array([hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts], _KEY)


class VectorCache:
    """Segments under one location, all of one encoder and one arithmetic.

    Args:
        uri: folder or object-store prefix.
        dim: D.
    """

    def __init__(self, uri: str, dim: int) -> None:
        self.uri, self.dim = uri, dim
        self._store, self._root = storage.filesystem(uri)
        if storage.is_local(uri):
            self._store.create_dir(self._root, recursive=True)

    def missing(self, keys: pa.Array) -> npt.NDArray[np.int64]:
        """Positions in `keys` of those that no segment holds, each distinct key once."""
        known = self._known()
        position_T = np.arange(len(keys))[pc.invert(pc.is_in(keys, value_set=known)).to_numpy(zero_copy_only=False)]
        first = pc.index_in(keys.take(pa.array(position_T)), value_set=keys).to_numpy()
        missing: npt.NDArray[np.int64] = position_T[first == position_T]
        return missing

    def add(self, keys: pa.Array, vector_TD: Halves) -> None:
        """Write one segment."""
        flat = pa.array(vector_TD.reshape(-1), pa.float16())
        table = pa.table({"key": keys, "vector": pa.FixedSizeListArray.from_arrays(flat, self.dim)})
        name = f"{self._root}/{uuid.uuid4().hex}.arrow"
        local = storage.is_local(self.uri)
        temporary = name.replace(".arrow", ".partial") if local else name
        with storage.reading(self.uri):
            with self._store.open_output_stream(temporary) as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
            if local:  # an object store shows an object only when it is whole
                self._store.move(temporary, name)

    def gather(self, keys: pa.Array, out_TD: Any, row_U: npt.NDArray[np.int64]) -> None:
        """Write the vector of each key to its row of `out_TD`, which `row_U` tells.

        Raises:
            StorageError: a key is missing.
        """
        at_T = pc.fill_null(pc.index_in(keys, value_set=self._known()), -1).to_numpy().astype(np.int64)
        if (at_T < 0).any():
            raise StorageError(f"{(at_T < 0).sum()} vectors are missing", where=self.uri, remedy="Run the step again.")
        order_T = np.argsort(at_T, kind="stable")
        start = 0
        for table in self._segments():
            first, last = np.searchsorted(at_T, [start, start + len(table)], sorter=order_T)
            row_T = order_T[first:last]
            vector_UD = table.column("vector").combine_chunks().flatten().to_numpy().reshape(-1, self.dim)
            out_TD[row_U[row_T]] = vector_UD[at_T[row_T] - start]
            start += len(table)

    def _known(self) -> pa.Array:
        parts = [table.column("key").combine_chunks() for table in self._segments(["key"])]
        return pa.concat_arrays(parts) if parts else pa.array([], _KEY)

    def _segments(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        with storage.reading(self.uri):
            files = self._store.get_file_info(FileSelector(self._root, allow_not_found=True))
            for file in sorted(files, key=lambda info: info.path):
                if not file.path.endswith(".arrow"):
                    continue
                options = pa.ipc.IpcReadOptions(included_fields=[0] if columns == ["key"] else None)
                with self._store.open_input_file(file.path) as source:
                    try:
                        yield pa.ipc.open_file(source, options=options).read_all()
                    except pa.ArrowInvalid as error:
                        raise StorageError(
                            f"a segment cannot be read: {error}", where=file.path, remedy="Delete it."
                        ) from error
